"""The stage push: where a run goes, what of it, what a push would do and has done."""
