"""What `import hfsafemerge` offers, and how runs show themselves to whoever looks at them from Python."""
