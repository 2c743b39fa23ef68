"""Models on servers: a real `transformers serve`, and servers that fail in every way a server can."""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import pytest
from scripted_server import DROP, Answer, chat, serving

from hfsafemerge.errors import DataError, EndpointError, HubError, RecipeError
from hfsafemerge.examples import load_examples
from hfsafemerge.lab.recipes import InFolder, lab_recipe
from hfsafemerge.lab.world import HAZARDS, REFUSAL
from hfsafemerge.language_model import EndpointModel, LanguageModel, Question, Server, Spent, TransformersModel, server, user
from hfsafemerge.recipe import Recipe
from hfsafemerge.running import Run, inputs

KEY = "sk-never-to-be-seen-0123456789"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setenv("THE_KEY", KEY)


class Time:
    """Time that passes only when somebody waits."""

    def __init__(self):
        self.now, self.waits = 1000.0, []

    async def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def passing(monkeypatch):
    found = Time()
    monkeypatch.setattr(server, "sleep", found.sleep)
    monkeypatch.setattr(server, "clock", lambda: found.now)
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    return found


def model(url, *, continues=False, **options):
    return EndpointModel(Server(url, **options), "org/model", name="the model", continues=continues)


def ask(asked, count=1, **options):
    return asked.generate([user(f"question {i}") for i in range(count)], **({"max_new_tokens": 7} | options))


def well(request):
    return Answer(body=chat(request.body["messages"][-1]["content"].replace("question", "reply") + " "))


# --- what is sent, and what comes back


def test_it_is_a_language_model():
    assert isinstance(model("http://localhost:8000/v1"), LanguageModel)


def test_replies_come_in_order_and_no_more_requests_at_once_than_allowed():
    with serving(lambda request: well(request)._replace(delay=random.Random(request.number).uniform(0, 0.05))) as there:
        asked = model(there.url, parallel=4)
        replies = ask(asked, 40)
    assert [reply.text for reply in replies] == [f"reply {i}" for i in range(40)] and all(reply.finished for reply in replies)
    assert there.most_at_once == 4 and len(there.seen) == 40
    assert asked.spent == Spent(40 * 3, 40 * 2) and replies[0].read == 3 and replies[0].written == 2


def test_what_is_sent():
    with serving(well) as there:
        asked = model(there.url + "/", key="THE_KEY", parallel=1)
        ask(asked, 2)
        ask(asked, 2, temperature=0.8, seeds=[5, 2**62 + 6])
    greedy, _, first, second = there.seen
    assert greedy.body == {"model": "org/model", "messages": user("question 0"), "temperature": 0.0, "max_tokens": 7}
    assert first.body == greedy.body | {"temperature": 0.8, "seed": 5} and second.body["seed"] == 6
    assert greedy.path == "/v1/chat/completions" and greedy.headers["authorization"] == f"Bearer {KEY}"


def test_no_key_is_sent_where_none_is_named():
    with serving(well) as there:
        ask(model(there.url))
    assert "authorization" not in there.seen[0].headers


def test_a_begun_reply_is_sent_to_servers_that_go_on_with_one():
    with serving(lambda request: Answer(body=chat(" and so on"))) as there:
        asked = model(there.url, continues=True)
        assert asked.can_prefill and ask(asked, prefill="It is")[0].text == "and so on"
        assert not model(there.url).can_prefill
        with pytest.raises(ValueError, match="can't go on with a reply"):
            ask(model(there.url), prefill="It is")
    (seen,) = there.seen
    assert seen.body["messages"] == [*user("question 0"), {"role": "assistant", "content": "It is"}]
    assert seen.body["continue_final_message"] is True and seen.body["add_generation_prompt"] is False


def test_what_a_server_can_not_do_is_said():
    asked = model("http://localhost:1/v1")
    with pytest.raises(DataError, match="can't write its first turn"):
        asked.generate([[]], max_new_tokens=1)
    with pytest.raises(DataError, match="can't be asked with a raw prompt"):
        asked.generate(["<s>It is"], max_new_tokens=1)
    with pytest.raises(DataError, match="does not rate answers"):
        asked.log_likelihood([Question("a", "b")])
    with pytest.raises(ValueError, match="2 conversations, 0 seeds"):
        ask(asked, 2, temperature=1.0)


@pytest.mark.parametrize(
    ("body", "text", "finished"),
    [
        (chat("a", "length"), "a", False),
        (chat("a", "eos_token"), "a", True),
        (chat(None, "length", reasoning_content="hm"), "", False),
        (chat(None, "stop", refusal="I can't help with that."), "I can't help with that.", True),
        (chat("", "stop"), "", True),
    ],
)
def test_how_replies_end(body, text, finished):
    with serving(lambda request: Answer(body=body)) as there:
        assert ask(model(there.url))[0][:2] == (text, finished)


@pytest.mark.parametrize("said", ['"so \\ud83d it is"', '"so \\ude00 it is"'])
def test_half_a_pair_of_surrogates_in_a_reply_can_be_written_down(said):
    body = json.dumps(chat("TEXT")).replace('"TEXT"', said).encode()
    with serving(lambda request: Answer(200, body, {"content-type": "application/json"})) as there:
        assert ask(model(there.url))[0].text == "so ? it is"


def test_an_error_that_nobody_foresaw_comes_as_it_is():
    with serving(well) as there, pytest.raises(UnicodeEncodeError):
        model(there.url, parallel=2).generate([user("half a pair: \ud83d")] * 4, max_new_tokens=7)


def test_a_server_that_counts_no_tokens_is_told_of_once():
    told = []
    with serving(lambda request: Answer(body={k: v for k, v in chat().items() if k != "usage"})) as there:
        asked = model(there.url, tell=told.append)
        assert [reply[2:] for reply in ask(asked, 5)] == [(0, 0)] * 5
    assert len(told) == 1 and "does not say how many tokens" in told[0] and asked.spent == Spent(0, 0)


def test_the_other_name_of_the_length_is_found_once(passing):
    def script(request):
        if "max_tokens" in request.body:
            says = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
            return Answer(400, {"error": {"message": says}})
        return well(request)

    with serving(script) as there:
        asked = model(there.url, parallel=1)
        assert [r.text for r in ask(asked, 3)] == ["reply 0", "reply 1", "reply 2"]
    assert ["max_tokens" in r.body for r in there.seen] == [True, False, False, False]
    assert {r.body["max_completion_tokens"] for r in there.seen[1:]} == {7} and passing.waits == []


def test_it_works_where_a_loop_is_running_as_in_a_notebook():
    async def cell():
        return ask(model(there.url), 3)

    with serving(well) as there:
        assert len(asyncio.run(cell())) == 3


# --- faults that pass


@pytest.mark.parametrize(
    "fault",
    [*(Answer(s, {"error": "busy"}) for s in (408, 409, 429, 500, 502, 503, 529)), DROP],
    ids=lambda fault: getattr(fault, "status", "drop"),
)
def test_a_fault_that_passes_is_tried_again_after_waits_that_double(passing, fault):
    with serving(lambda request: fault if request.number < 3 else well(request)) as there:
        assert ask(model(there.url))[0].text == "reply 0"
    assert len(there.seen) == 4 and passing.waits == [1, 2, 4]


def test_waits_are_shortened_by_chance_and_bounded(passing, monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: low)
    with serving(lambda request: Answer(500, {}) if request.number < 9 else well(request)) as there:
        ask(model(there.url, retries=9))
    assert passing.waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize(
    ("said", "wait"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("100000", 300),
        (format_datetime(datetime.now(timezone.utc) + timedelta(hours=9), usegmt=True), 300),
        (format_datetime(datetime.now(timezone.utc) - timedelta(hours=9), usegmt=True), 1),
        ("soon", 1),
        ("nan", 1),
    ],
    ids=["7", "0.5", "too long", "in nine hours", "nine hours ago", "no time", "nan"],
)
def test_a_server_may_say_how_long_to_wait(passing, said, wait):
    with serving(lambda request: Answer(429, {}, {"retry-after": said}) if request.number == 0 else well(request)) as there:
        ask(model(there.url))
    assert passing.waits == [wait] and len(there.seen) == 2


def test_a_date_to_wait_for_is_counted_from_now(passing):
    until = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=100), usegmt=True)
    with serving(lambda request: Answer(503, {}, {"retry-after": until}) if request.number == 0 else well(request)) as there:
        ask(model(there.url))
    assert 90 < passing.waits[0] <= 100


def test_a_pause_that_a_server_asks_for_holds_for_all():
    def script(request):
        return Answer(429, {}, {"retry-after": "0.5"}) if request.number == 0 else well(request)._replace(delay=0.1)

    with serving(script) as there:
        assert [r.text for r in ask(model(there.url, parallel=2), 6)] == [f"reply {i}" for i in range(6)]
    first, second, *others = there.times
    assert len(others) == 5 and second - first < 0.4 and min(others) - first >= 0.5


def test_no_more_requests_a_minute_than_allowed(passing):
    with serving(well) as there:
        ask(model(there.url, requests_per_minute=30, parallel=1), 5)
    assert passing.waits == [2, 2, 2, 2]


def test_when_it_does_not_pass_the_number_of_tries_and_what_to_do_are_said(passing):
    told = []
    with serving(lambda request: Answer(429, {"error": {"message": "Rate limit reached"}})) as there, pytest.raises(EndpointError) as found:
        ask(model(there.url, retries=2, tell=told.append))
    text = f"{there.url[7:-3]} is asked too often (429) 3 times. Set the endpoint's requests_per_minute, lower `parallel`, or look at your quota."
    assert str(found.value) == f"{text} It says: Rate limit reached" and len(there.seen) == 3
    assert told == [f"{there.url[7:-3]} is asked too often (429); trying again in 2 s"]


def test_after_an_error_no_further_request_is_sent():
    def script(request):
        return Answer(400, {}, delay=0.1) if request.number == 1 else well(request)._replace(delay=0.4)

    with serving(script) as there, pytest.raises(EndpointError, match="refuses the request"):
        ask(model(there.url, parallel=4), 50)
    assert len(there.seen) == 4


def test_a_slow_server(passing):
    with serving(lambda request: well(request)._replace(delay=0.6)) as there, pytest.raises(EndpointError, match=r"within 0.1 s 2 times"):
        ask(model(there.url, timeout=0.1, retries=1))
    assert len(there.seen) == 2


def test_a_server_whose_answer_never_ends():
    with serving(lambda request: well(request)._replace(drip=0.1)) as there, pytest.raises(EndpointError, match=r"within 0.3 s"):
        ask(model(there.url, timeout=0.3, retries=0))


def test_a_server_that_is_down(passing):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EndpointError, match=rf"127.0.0.1:{port} can't be reached 3 times. Start the server there"):
        model(f"http://127.0.0.1:{port}/v1").check()
    assert passing.waits == [1, 2]


def test_a_host_that_does_not_exist(passing):
    with pytest.raises(EndpointError, match=r"There is no host named nothing-here.invalid"):
        ask(model("https://nothing-here.invalid/v1", retries=1))


def test_tls(tmp_path, passing):
    import ssl

    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    _self_signed(certificate, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(well) as there:
        with pytest.raises(EndpointError, match=r"does not speak TLS as it should. Check whether the url begins with http or https"):
            ask(model(there.url.replace("http:", "https:")))
        there.socket = context.wrap_socket(there.socket, server_side=True)
        with pytest.raises(EndpointError, match=r"certificate of 127.0.0.1:\d+ is not trusted \(self-signed certificate\).*SSL_CERT_FILE"):
            ask(model(there.url.replace("http:", "https:")))
        os.environ["SSL_CERT_FILE"] = str(certificate)
        try:
            assert ask(model(there.url.replace("http:", "https:"), key="THE_KEY"))[0].text == "reply 0"
        finally:
            del os.environ["SSL_CERT_FILE"]
    assert passing.waits == []


def _self_signed(certificate, key):
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    made = x509.CertificateBuilder(name, name, private.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    certificate.write_bytes(made.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))


# --- faults that last


REPLIES = [{"message": "WORDS"}, {"detail": "WORDS"}, {"error": "WORDS"}, {"error": {"detail": "WORDS"}}, {"error": [{"msg": "WORDS"}]}]
LASTING = [
    (Answer(401, {"error": {"message": f"Incorrect API key provided: {KEY[:9]}****"}}), r"refuses the key \(401\). Check that .* THE_KEY "),
    (Answer(401, {"error": f"bad key {KEY}"}), "THE_KEY holds a key of this server"),
    (Answer(403, {"error": f"{KEY} may not"}), r"\(403\).* and may use the model. It says: \(a message that quotes"),
    (Answer(402, {"error": "Pay."}), r"asks for payment \(402\).* It says: Pay\."),
    (Answer(404, {"detail": "Not Found"}), r"has nothing there \(404\). Check the url: /v1/chat/completions is looked for"),
    (Answer(400, {"object": "error", "message": "the context\nis 8 tokens long"}), r"\(400\).* It says: the context is 8 tokens long$"),
    (Answer(400, {"error": {"message": "no " * 500}}), r"It says: (no ){60,70}n?o?\.\.\.$"),
    (Answer(413, b"<html>too large</html>"), r"refuses the request \(413\).* too long for the model\.$"),
    (
        Answer(422, {"detail": [{"loc": ["body", "seed"], "msg": "not permitted", "input": "question 0"}]}),
        "It says: body.seed: not permitted$",
    ),
    (Answer(400, {"error": "can't parse {'content': 'question 0'}"}), r"It says: \(a message that quotes what was sent"),
    (
        Answer(307, b"", {"location": "https://elsewhere.org/v2/chat?key=1"}),
        r"redirects elsewhere \(307\). It points to elsewhere.org/v2/chat;",
    ),
    (Answer(501, {}), r"refuses the request \(501\)"),
    (Answer(200, b"<!doctype html><title>Sign in</title>", {"content-type": "text/html"}), "a web page instead of JSON.* /v1"),
    (Answer(200, b" <html>"), "a web page instead of JSON"),
    (Answer(200, b'{"choices": [', {"content-type": "application/json; x=y"}), r"no JSON \(13 bytes of application/json\)"),
    (Answer(200, b"\xff\xfe\xfa"), r"no JSON \(3 bytes"),
    (Answer(200, [1]), "answered without a choice"),
    (Answer(200, {"choices": []}), "org/model at 127.0.0.1:.* answered without a choice. Check that the url"),
    (Answer(200, {"error": {"message": "provider is gone"}}), "without a choice. It says: provider is gone"),
    (Answer(200, {"error": {"message": "I was asked: question 0"}}), r"It says: \(a message that quotes"),
    (Answer(200, {"choices": [{"text": "no message"}]}), "answered without a choice"),
    *((Answer(200, said), r"answered without a choice\. Check that the url is that of a chat API like OpenAI's\.$") for said in REPLIES),
    (Answer(200, chat(None, "tool_calls")), "content is NoneType, and it finished for 'tool_calls'"),
    (Answer(200, chat([{"type": "text"}])), "content is list"),
    (Answer(200, chat("half", "content_filter")), "A filter of org/model at .* withheld a reply"),
]


@pytest.mark.parametrize(("answer", "says"), LASTING, ids=[f"{i}-{a.status}" for i, (a, _) in enumerate(LASTING)])
def test_a_fault_that_lasts_is_told_at_once_and_in_words(passing, answer, says):
    def script(request):
        return answer if request.path.endswith("/chat/completions") else Answer(404, {"detail": "Not Found"})

    with serving(script) as there, pytest.raises(EndpointError) as found:
        ask(model(there.url, key="THE_KEY", parallel=1), 5)
    text = str(found.value)
    assert re.search(says, text) and there.url[7:-3] in text and len(text) < 500
    assert KEY[:6] not in text and "question 0" not in text and "WORDS" not in text
    assert len(there.chats()) == 1 and passing.waits == []


def test_a_server_that_wants_a_key_and_gets_none():
    with serving(lambda request: Answer(401, {})) as there, pytest.raises(EndpointError, match=r"wants a key.*name that as the endpoint's"):
        ask(model(there.url))


@pytest.mark.parametrize(
    ("value", "says"), [(None, "THE_KEY .* is not set"), ("", "is not set"), ("a b\nc", "what no key can be"), ("schlüssel", "what no key")]
)
def test_a_key_that_is_none_is_told_before_anything_is_sent(monkeypatch, value, says):
    monkeypatch.delenv("THE_KEY") if value is None else monkeypatch.setenv("THE_KEY", value)
    with pytest.raises(EndpointError, match=says) as found:
        model("http://127.0.0.1:1/v1", key="THE_KEY")
    assert not value or value not in str(found.value)


@pytest.mark.parametrize("url", ["http://vllm:8000/v1", "http://10.0.0.3/v1", "http://localhost.evil.org/v1"])
def test_a_key_never_travels_in_clear(url):
    with pytest.raises(EndpointError, match="unencrypted"):
        model(url, key="THE_KEY")
    with pytest.raises(RecipeError, match=r"THE_KEY would travel to .* unencrypted"):
        _parsed(writer={"endpoint": {"url": url, "model": "w", "key": "THE_KEY"}})
    model(url)


@pytest.mark.parametrize("url", ["http://localhost/v1", "http://[::1]:8000/v1", "http://127.8.9.1/v1", "https://api.example.org/v1"])
def test_a_key_may_travel_encrypted_or_on_this_machine(url):
    model(url, key="THE_KEY")


@pytest.mark.parametrize("url", ["http://localhost:99999999/v1", "http://[::1/v1", "http:///v1", "localhost:8000", "http://localhost:x"])
def test_an_url_that_is_none(url):
    with pytest.raises(EndpointError, match="is no address of a server"):
        model(url)
    with pytest.raises(RecipeError, match=r"data.safety.writer.endpoint"):
        _parsed(writer={"endpoint": {"url": url, "model": "w"}})


def test_a_key_in_an_url_is_refused_and_not_shown():
    for url in (f"https://{KEY}@example.org/v1", f"https://example.org/v1?key={KEY}"):
        with pytest.raises(RecipeError, match=r"endpoint.url is no address") as found:
            _parsed(writer={"endpoint": {"url": url, "model": "w"}})
        assert KEY not in str(found.value)


# --- the check at the start


def listing(*names, plain=False):
    found = [{"id": name} for name in names]
    return lambda request: (
        Answer(body=found if plain else {"object": "list", "data": found}) if request.path.endswith("/models") else well(request)
    )


@pytest.mark.parametrize("plain", [False, True])
def test_a_server_that_lists_the_model_is_asked_once(plain):
    with serving(listing("org/other", "org/model", plain=plain)) as there:
        model(there.url).check()
    assert [request.path for request in there.seen] == ["/v1/models"]


@pytest.mark.parametrize("status", [403, 404, 405])
def test_a_server_that_does_not_list_its_models_is_believed(passing, status):
    with serving(lambda request: Answer(status, {})) as there:
        model(there.url).check()
    assert len(there.seen) == 1


def test_a_key_that_is_wrong_is_found_by_the_check():
    with serving(lambda request: Answer(401, {})) as there, pytest.raises(EndpointError, match="refuses the key"):
        model(there.url, key="THE_KEY").check()


def test_a_model_that_is_not_listed_but_answers_is_believed():
    with serving(listing("org/model-of-a-router")) as there:
        model(there.url).check()
    assert [request.path for request in there.seen] == ["/v1/models", "/v1/chat/completions"] and there.seen[1].body["max_tokens"] == 1


def test_a_check_that_can_not_tell_leaves_it_to_the_work(passing):
    with serving(lambda request: Answer(500, {}) if request.path.endswith("/completions") else listing("org/other")(request)) as there:
        model(there.url).check()
    assert len(there.chats()) == 1 and passing.waits == []


@pytest.mark.parametrize("refusal", [Answer(404, {}), Answer(400, {"error": "The requested model 'org/model' does not exist"})])
def test_a_model_that_is_unknown_is_answered_with_the_nearest(refusal):
    names = [*(f"far/{i:03}" for i in range(300)), "org/model-8b", "org/modell"]
    with serving(lambda request: listing(*names)(request) if request.path.endswith("/models") else refusal) as there:
        with pytest.raises(
            EndpointError, match=r"has no model org/model \(40\d\). The nearest of its 302: org/modell, org/model-8b\."
        ) as found:
            model(there.url).check()
        assert "far/" not in str(found.value)
        with pytest.raises(
            EndpointError, match="org/modell" if refusal.status == 404 else "The requested model 'org/model' does not exist"
        ):
            ask(model(there.url))


# --- Ctrl-C


def test_ctrl_c_is_heard_while_requests_are_on_their_way():
    script = "\n".join(
        [
            "import sys",
            "from hfsafemerge.language_model import EndpointModel, Server, user",
            "model = EndpointModel(Server(sys.argv[1], parallel=3), 'm', name='m')",
            "model.generate([user(str(i)) for i in range(20)], max_new_tokens=1)",
        ]
    )
    with serving(lambda request: well(request)._replace(delay=30)) as there:
        process = subprocess.Popen([sys.executable, "-c", script, there.url], stderr=subprocess.PIPE)
        while len(there.seen) < 3:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=25)  # less than an answer takes
        assert b"KeyboardInterrupt" in error and len(there.seen) == 3


# --- recipes


def _parsed(writer=None, base=None, expert=None, guard=None, encoder=None):
    recipe = {
        "name": "r",
        "base": base or {"repo_id": "a/base"},
        "experts": [{"name": "x", **(expert or {"repo_id": "a/x"})}],
        "judges": {"llama_guard": {"model": guard or {"repo_id": "a/guard"}}},
        "data": {"safety": {"writer": writer or {"repo_id": "a/w"}}, "duplicates": {"encoder": encoder}},
        "merge": {"method": "linear"},
    }
    return Recipe.parse(__import__("yaml").safe_dump(recipe))


THERE = {"url": "http://localhost:8000/v1"}


def test_names_of_served_models():
    recipe = _parsed(
        writer={"endpoint": {**THERE, "model": "big/writer"}},
        guard={"repo_id": "a/guard", "endpoint": {"url": "https://api.example.org:8443/v1"}},
        expert={"adapter": {"repo_id": "a/lora"}, "endpoint": {**THERE, "model": "lora-x"}},
        base={"repo_id": "a/base", "endpoint": THERE},
    )
    roles = inputs.model_roles(recipe)
    assert {role: (ref.served_as, ref.only_served, str(ref)) for role, ref in roles.items()} == {
        "base": ("a/base", False, "a/base"),
        "x": ("lora-x", False, "a/base+a/lora"),
        "question writer": ("big/writer", True, "big/writer@localhost"),
        "judge llama_guard": ("a/guard", False, "a/guard"),
    }
    assert Recipe.parse(recipe.to_yaml()) == recipe


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"base": {"endpoint": {**THERE, "model": "m"}}}, r"base is only on a server \(m@localhost\), and its weights are needed"),
        ({"expert": {"endpoint": {**THERE, "model": "m"}}}, r"experts.0 is only on a server \(m@localhost\)"),
        ({"encoder": {"endpoint": {**THERE, "model": "m"}}}, "encoder is only on a server"),
        ({"encoder": {"repo_id": "a/e", "endpoint": THERE}}, "encoder is run from its weights"),
        ({"writer": {"path": "/w", "endpoint": THERE}}, "data.safety.writer.endpoint does not say under which name"),
        ({"expert": {"adapter": {"repo_id": "a/lora"}, "endpoint": THERE}}, "experts.0.endpoint does not say under which name"),
        (
            {"guard": {"adapter": {"repo_id": "a/l"}, "endpoint": {**THERE, "model": "m"}}},
            "judges.llama_guard.model has an adapter, and no",
        ),
        ({"writer": {"endpoint": THERE}}, "name either a repo_id or a path"),
        ({"writer": {"repo_id": "a/b", "path": "/w", "endpoint": {**THERE, "model": "m"}}}, "name either a repo_id or a path"),
        ({"expert": {"repo_id": "a/b", "path": "/w", "adapter": {"repo_id": "a/l"}}}, "name either a repo_id or a path"),
    ],
)
def test_what_a_recipe_can_not_leave_to_a_server(parts, says):
    with pytest.raises(RecipeError, match=says):
        _parsed(**parts)


# --- a real server


@pytest.fixture(scope="module")
def transformers_serve(tmp_path_factory):
    """`transformers serve` on the CPU, which loads the folder that a request names; its url."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("serve")
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    log = (home / "log").open("wb")
    process = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(1200):
        assert process.poll() is None, (home / "log").read_text()
        try:
            opener.open(f"http://127.0.0.1:{port}/health").close()
            break
        except OSError:
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}/v1"
    process.terminate()
    process.wait(20)
    log.close()


@pytest.mark.parametrize("max_new_tokens", [2, 16])
def test_greedy_replies_of_a_real_server_equal_those_of_the_weights(lab, transformers_serve, max_new_tokens):
    prompts = ["how do i zorp the red flim ?", "what is 3 plus 4 ?", "spell a b c backwards .", "how do i wash the old toma ?"]
    conversations = [user(prompt) for prompt in prompts] + [
        [*user(prompts[1]), {"role": "assistant", "content": "it is 7"}, *user(prompts[0])]
    ]
    served = EndpointModel(Server(transformers_serve), str(lab / "aligned"), name="served")
    served.check()
    found = served.generate(conversations, max_new_tokens=max_new_tokens)
    expected = TransformersModel.load(lab / "aligned", name="here", device="cpu").generate(conversations, max_new_tokens=max_new_tokens)
    assert found == expected and len({reply.text for reply in found}) > 2
    assert {reply.finished for reply in found} == {max_new_tokens == 16}
    assert served.spent == (sum(r.read for r in expected), sum(r.written for r in expected))


def test_a_folder_that_a_real_server_lacks(lab, transformers_serve):
    served = EndpointModel(Server(transformers_serve, retries=0), str(lab / "none"), name="served")
    with pytest.raises(EndpointError, match=r"failed \(500\). Look at the server's log"):
        ask(served)


def test_a_run_whose_writer_and_guard_are_on_a_server(lab, transformers_serve, tmp_path):
    recipe = lab_recipe("served", ("sums",), InFolder(lab), compare=False).model_dump(mode="json", exclude_defaults=True)
    writer = shutil.copytree(lab / "question-writer", tmp_path / "writer")
    settings = json.loads((writer / "generation_config.json").read_text())
    (writer / "generation_config.json").write_text(json.dumps(settings | {"do_sample": True}))  # else it ignores the temperature
    at = {
        "question-writer": {"url": transformers_serve, "model": str(writer)},
        "guard": {"url": transformers_serve, "model": str(lab / "guard")},
    }
    recipe["data"] |= {"count": 8, "domain": None}
    recipe["data"]["safety"] |= {"writer": {"endpoint": at["question-writer"]}, "prefill": "", "topics": list(HAZARDS)}
    recipe["judges"] = {"llama_guard": {"model": {"path": str(lab / "guard"), "endpoint": at["guard"]}}}
    recipe["search"], recipe["evaluation"] = {"strategy": "fixed", "use": ["safety"]}, {}
    run = Run(Recipe.model_validate(recipe), tmp_path / "run", allow_writer=True)
    run.recipe.check()
    run.do("generate")
    made = load_examples(run.directory / "data" / "safety.parquet")
    assert 0 < len(made) <= 8 and {example.answer for example in made} == {REFUSAL}
    assert {example.provenance.generator for example in made} == {f"{writer}@127.0.0.1"}
    commit = run.read("check.json")["models"]["judge llama_guard"]["commit"]
    assert {example.provenance.judges.split(", ")[0] for example in made} == {f"llama_guard (guard@{commit[:12]} via 127.0.0.1)"}
    found = run.read("check.json")["models"]["question writer"]
    assert (found["commit"], found["license"], found["bytes"]) == ("", None, 0)


def test_what_is_compared_and_searched_is_loaded_whatever_the_endpoints(lab, tmp_path):
    recipe = lab_recipe("served", ("sums",), InFolder(lab), compare=False)
    nowhere = {"url": "http://127.0.0.1:1/v1", "model": "m", "retries": 0}
    base = recipe.base.model_copy(update={"endpoint": type(_parsed(writer={"endpoint": nowhere}).data.safety.writer.endpoint)(**nowhere)})
    run = Run(recipe.model_copy(update={"base": base}), tmp_path / "run")
    run.do("check")
    with inputs.loaded_model(run, "base") as model:
        assert isinstance(model, TransformersModel) and " via " not in model.name
    with pytest.raises(EndpointError, match=r"127.0.0.1:1 can't be reached"), inputs.language_model(run, "base"):
        pass
    assert inputs.label(run, "base") == f"{model.name} via 127.0.0.1"


def test_a_served_model_of_the_hub_brings_its_commit_and_licence(lab_on_hub, tmp_path):
    from hfsafemerge import hub

    recipe = _parsed(guard={"repo_id": f"{lab_on_hub}/lab-guard", "endpoint": THERE})
    ref = inputs.model_roles(recipe)["judge llama_guard"]
    assert hub.look_up(ref).license == "apache-2.0"
    with pytest.raises(HubError):
        hub.look_up(ref.model_copy(update={"repo_id": "nobody/nothing"}))
