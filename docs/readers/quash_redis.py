#!/usr/bin/env python3
"""Is a token revoked? Asks Quash's Redis view, and nothing else.

    python3 quash_redis.py < TOKEN      # 0 clean, 1 revoked or held, 6 could not tell

QUASH_REDIS_URL says where (redis://user:password@host:port, or rediss:// with
TLS). One file, the standard library only: copy it, or write it again in your
language; schemas/redis.json has the vectors that it is tested with, and
docs/protocol.md the rules.

It does not verify the signature, issuer, audience and expiry: your JWT library
does that first. And it keeps one View for the life of the process: a View
believes nothing before it has seen the beat move, which takes 2 to 3 seconds.

    view = View(Redis(os.environ["QUASH_REDIS_URL"]))
    threading.Thread(target=view.follow, daemon=True).start()
    outcome, why = view.check(targets(claims), claims["rseq"])
    # CLEAN: go on. HIT: 401. INCOMPLETE: 503, it says nothing of the token.
"""

import base64
import hashlib
import json
import os
import re
import socket
import ssl
import struct
import sys
import threading
import time
from urllib.parse import unquote, urlsplit

CLEAN, HIT, INCOMPLETE = "clean", "hit", "incomplete"
LIMIT = 3.0  # seconds; receipts say that every reader has refused by then


class Incomplete(Exception):
    """The view can't say that something is not revoked."""


def target_key(tenant, issuer, kind, id):
    """The key of a target: see schemas/target-keys.json."""
    h = hashlib.sha256()
    for part in (tenant, issuer, kind, id):
        part = part.encode()
        h.update(struct.pack(">I", len(part)) + part)
    return base64.urlsafe_b64encode(h.digest()[:16]).rstrip(b"=").decode()


def pair(a, b):
    """The id of a grant: its halves, percent-encoded where they have / or %."""
    return "/".join(s.replace("%", "%25").replace("/", "%2F") for s in (a, b))


def targets(claims):
    """The keys of all that can revoke this token: any hit refuses it."""
    tenant = claims["tenant"]
    names = [
        ("token", claims["jti"]),
        ("principal", claims["sub"]),
        ("client", claims["client_id"]),
        ("grant", pair(claims["sub"], claims["client_id"])),
        ("signing-key", claims["_kid"]),
        ("tenant", tenant),
        ("issuer", "own"),
    ]
    if "sid" in claims:
        names += [("session", claims["sid"]), ("sign-ins", claims["sub"])]
    return [target_key(tenant, "own", kind, id) for kind, id in names] + list(claims.get("via", []))


def shard_of(tenant, shards):
    """FNV-1a, 32 bit, of the tenant modulo the number of shards."""
    h = 0x811C9DC5
    for byte in tenant.encode():
        h = (h ^ byte) * 0x01000193 & 0xFFFFFFFF
    return h % shards


NUMBER = re.compile(r"(0|[1-9][0-9]*)\Z", re.ASCII)
SIGNED = re.compile(r"(0|-?[1-9][0-9]*)\Z", re.ASCII)
ID = re.compile(r"[A-Za-z0-9_-]{21}[AQgw]\Z", re.ASCII)


def number(text, most=2**64 - 1, form=NUMBER):
    if not form.match(text) or not -(2**63) <= int(text) <= most:
        raise ValueError(f"{text!r} is no number")
    return int(text)


def stamp(text):
    """EPOCH.SEQUENCE, as a pair that compares as stamps do."""
    epoch, dot, seq = text.partition(".")
    if not dot:
        raise ValueError(f"{text!r} is no stamp")
    return number(epoch), number(seq)


def fields(text, count):
    parts = text.split(" ")
    if parts[0] != "q1" or len(parts) != count:
        raise ValueError("not written by a version that this reader knows")
    return parts[1:]


class State:
    """What is known of a target: q1 CUT CUT_AT ENDED HELD RELEASED UNTIL."""

    def __init__(self, text):
        cut, cut_at, ended, held, released, until = fields(text, 7)
        if ended not in ("0", "1"):
            raise ValueError("ended is neither 0 nor 1")
        self.cut, self.held, self.released = stamp(cut), stamp(held), stamp(released)
        self.cut_at = number(cut_at, 2**63 - 1, SIGNED)
        self.until = number(until, 2**63 - 1, SIGNED)
        self.ended = ended == "1"

    def hits(self, born, epochs):
        return self.ended or clamp(self.released, epochs) < self.held or clamp(born, epochs) < self.cut


class Meta:
    """q1 SHARD/SHARDS EPOCH.SEQUENCE ID STAMP GENERATION complete|building SERIES BEAT EPOCHS"""

    def __init__(self, text):
        shard, at, id, newest, self.generation, state, self.series, beat, epochs = fields(text, 10)
        n, slash, of = shard.partition("/")
        self.shard, self.shards = number(n), number(of) if slash else 0
        self.at, self.id, self.stamp, self.beat = stamp(at), id, stamp(newest), number(beat)
        if state not in ("complete", "building") or not all(map(ID.match, (id, self.generation, self.series))):
            raise ValueError("malformed")
        self.complete = state == "complete"
        self.epochs = []  # (number, D), ascending
        for part in epochs.split(","):
            epoch, d, how = part.split(":")
            if how not in ("begun", "restored") or number(epoch) <= (self.epochs[-1][0] if self.epochs else 0):
                raise ValueError("malformed epochs")
            self.epochs.append((number(epoch), stamp(d)))
        if not self.shard < self.shards <= 1024 or self.at[0] != self.epochs[-1][0] or self.at < self.stamp:
            raise ValueError("it contradicts itself")


def clamp(s, epochs):
    """A stamp of an older epoch above a later one's D was lost with that history: it counts as D."""
    for n, d in reversed(epochs):
        if n <= s[0]:
            break
        s = min(s, d)
    return s


class Clock:
    """Monotonic and wall time: the age of something is what the greater says, since machines sleep."""

    def now(self):
        return time.monotonic(), time.time()

    def age(self, since):
        return max(a - b for a, b in zip(self.now(), since))


class View:
    """One shard of the view, read on one connection. Safe for several threads.

    redis.mget(keys) returns the values (None where missing) and names the
    connection that answered: another one may lead to another server.
    """

    def __init__(self, redis, tenant="default", shards=1, limit=LIMIT, clock=Clock()):
        self.redis, self.shards, self.limit, self.clock = redis, shards, limit, clock
        self.shard = shard_of(tenant, shards)
        self.lock = threading.Lock()
        self.seen, self.seen_of = [], None  # beats with the time before their read; of which connection and series
        self.floor, self.epochs = ((0, 0), ""), []  # what was seen before must still be there

    def check(self, keys, rseq):
        """Whether any of the keys is revoked for something born at rseq: (CLEAN, HIT or INCOMPLETE, why)."""
        born = stamp(rseq)
        prefix = "{q%d}:" % self.shard
        with self.lock:
            before = self.clock.now()
            try:
                values, connection = self.redis.mget([prefix + "m"] + [prefix + "t:" + k for k in keys])
            except OSError as e:
                self.seen = []
                return INCOMPLETE, f"Redis was not read: {e}"
            try:
                age = self.believe(values[0], connection, before)
                why = None
            except (Incomplete, ValueError) as e:
                why = str(e)
            # A hit counts in any view: whether it is whole matters to "not revoked" alone.
            for key, value in zip(keys, values[1:]):
                if value is None:
                    continue
                try:
                    if State(value).hits(born, self.epochs):
                        return HIT, key
                except ValueError as e:
                    why = f"target {key}: {e}"
            if why is None and self.floor[0] < clamp(born, self.epochs):
                why = "it is behind the token: try again in a moment"
            if why is not None:
                return INCOMPLETE, why
            return CLEAN, f"as of {age:.1f} s ago at most"

    def believe(self, text, connection, before):
        """The view's age by this meta; Incomplete if it proves none."""
        try:
            if text is None:
                raise Incomplete("its meta is missing")
            m = Meta(text)
            if (m.shard, m.shards) != (self.shard, self.shards):
                raise Incomplete("its meta is of another shard")
            if not m.complete:
                raise Incomplete("it is being rebuilt")
            if m.at < self.floor[0] or m.at == self.floor[0] and self.floor[1] not in ("", m.id):
                raise Incomplete("it went back")
        except (Incomplete, ValueError):
            self.seen = []
            raise
        self.floor, self.epochs = (m.at, m.id), m.epochs
        of = (connection, m.generation, m.series)
        if self.seen_of != of or self.seen and m.beat < self.seen[-1][0]:
            self.seen, self.seen_of = [], of
        # Beat j was the newest at t: j+1 was written later, and the log's head for j+2 asked for after that.
        proofs = [t for beat, t in self.seen if beat + 2 <= m.beat]
        if self.seen and self.seen[-1][0] == m.beat:
            self.seen[-1] = (m.beat, before)
        else:
            self.seen = self.seen[-3:] + [(m.beat, before)]
        if not proofs:
            raise Incomplete("its beat has not been watched for long enough")
        age = self.clock.age(proofs[-1])
        if age > self.limit:
            raise Incomplete(f"its beat stands still: it may be {age:.1f} s old")
        return age

    def follow(self, every=0.25):
        """Watches the beat for ever, so that a check finds the proof there already."""
        while True:
            self.check([], "0.0")
            time.sleep(every)


class Redis:
    """One connection to the primary, dialled again when it breaks, and counted."""

    def __init__(self, url, timeout=1.0):
        self.url, self.timeout = urlsplit(url), timeout
        self.stream, self.dials = None, 0

    def mget(self, keys):
        """The values, and which connection answered; OSError if none did."""
        try:
            if self.stream is None:
                self.dial()
            # Asked each time: a primary can become a replica, which is behind, under an open connection.
            hello, values = self.ask(["HELLO", "2"], ["MGET", *keys])
            if dict(zip(hello[::2], hello[1::2])).get("role") != "master":
                raise OSError("it is no primary")
            return values, self.dials
        except (OSError, ValueError) as e:
            if self.stream is not None:
                self.stream.close()
                self.stream = None
            raise OSError(str(e)) from e

    def dial(self):
        conn = socket.create_connection((self.url.hostname, self.url.port or 6379), self.timeout)
        if self.url.scheme == "rediss":
            conn = ssl.create_default_context().wrap_socket(conn, server_hostname=self.url.hostname)
        self.stream = conn.makefile("rwb")
        conn.close()  # with the stream
        self.dials += 1
        if self.url.password:
            self.ask(["AUTH", unquote(self.url.username or "default"), unquote(self.url.password)])

    def ask(self, *commands):
        for args in commands:
            parts = [a.encode() for a in args]
            self.stream.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))
        self.stream.flush()
        return [self.answer() for _ in commands]

    def answer(self):
        line = self.stream.readline()
        if not line.endswith(b"\r\n"):
            raise OSError("the connection was closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise OSError("Redis says " + rest.decode())
        if kind in b"+:":
            return rest.decode()
        if kind == b"*":
            return [self.answer() for _ in range(int(rest))]
        if kind == b"$":
            if rest == b"-1":
                return None
            text = self.stream.read(int(rest) + 2)
            if len(text) != int(rest) + 2:
                raise OSError("the connection was closed")
            return text[:-2].decode()
        raise OSError(f"an answer of kind {kind!r}")


def claims_of(token):
    """The claims of a token that a JWT library has verified, and its kid."""
    header, payload = (json.loads(base64.urlsafe_b64decode(p + "=" * (-len(p) % 4))) for p in token.split(".")[:2])
    return dict(payload, _kid=header["kid"])


def main():
    claims = claims_of(sys.stdin.read().strip())
    view = View(Redis(os.environ["QUASH_REDIS_URL"]), claims["tenant"])
    keys, rseq = targets(claims), claims["rseq"]
    deadline = time.monotonic() + 10
    while True:
        outcome, why = view.check(keys, rseq)
        if outcome != INCOMPLETE or time.monotonic() > deadline:
            print(outcome, why)
            return {CLEAN: 0, HIT: 1, INCOMPLETE: 6}[outcome]
        time.sleep(0.25)


if __name__ == "__main__":
    sys.exit(main())
