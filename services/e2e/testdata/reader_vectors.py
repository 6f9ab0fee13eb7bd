"""Holds the reader of docs/readers against the vectors of schemas/: READER_DIR SCHEMAS_DIR."""

import json
import pathlib
import sys

sys.path.insert(0, sys.argv[1])
import quash_redis as q  # noqa: E402

schemas = pathlib.Path(sys.argv[2])
vectors = json.loads((schemas / "redis.json").read_text(encoding="utf-8"))
wrong = []


def want(what, got, expected):
    if got != expected:
        wrong.append(f"{what}: {got!r}, want {expected!r}")


for v in json.loads((schemas / "target-keys.json").read_text(encoding="utf-8"))["vectors"]:
    want(f"key of {v}", q.target_key(v["tenant"], v["issuer"], v["kind"], v["id"]), v["key"])
for v in vectors["shards"]:
    want(f"shard of {v}", q.shard_of(v["tenant"], v["shards"]), v["shard"])
for name, parse in (("states", q.State), ("metas", q.Meta)):
    for v in vectors[name]["read"]:
        parse(v["text"])
    for text in vectors[name]["refused"]:
        try:
            parse(text)
        except ValueError:
            continue
        wrong.append(f"{name}: {text!r} was taken")


class Script:
    """A Redis and a clock that do what a vector says."""

    def mget(self, keys):
        self.ms += self.step.get("took", 0)
        return [self.step["meta"], self.step["value"]], self.step["conn"]

    def now(self):
        return self.ms

    def age(self, since):
        return (self.ms - since) / 1000


for case in vectors["reads"]:
    script = Script()
    view = q.View(script, clock=script)
    for i, script.step in enumerate(case["steps"]):
        script.ms = script.step["at"]
        outcome, why = view.check([vectors["keys"][0]["target"]], script.step["stamp"])
        want(f"{case['name']}, step {i} ({why})", outcome, script.step["outcome"])

print("\n".join(wrong) or f"{len(vectors['reads'])} cases")
sys.exit(1 if wrong else 0)
