package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// benchmark is one go benchmark and the rows that its output gives.
type benchmark struct {
	name, pkg, pattern, time string
	once                     bool // it takes long, and interleaves many rounds by itself
	stored                   bool // it stores as many records as is asked for
	rows                     []row
}

// row sets one figure beside another of the same run.
type row struct {
	what string
	// measured and limit are "SUB UNIT" of the output, SUB being what stands after
	// Benchmark. An empty limit: the figure stands against goal itself.
	measured, limit string
	inverse         bool // the ratio is limit / measured: how many times faster
	goal            float64
	least           bool // the goal is the least, not the most
	plus            bool // the goal is how much more than the limit it may be
	free            bool // there is no goal
}

const guardPkg = "./shared/guard"

var benchmarks = []benchmark{
	{
		name: "targets", pkg: guardPkg + "/revoke", pattern: "BenchmarkTargets/set=1e6", time: "1s",
		rows: []row{
			{what: "targets of a token, 1,000,000 entries, misses", measured: "Targets/set=1e6/hit=false/impl=view ns/op", limit: "Targets/set=1e6/hit=false/impl=map ns/op", goal: 0.4},
			{what: "the same, hits", measured: "Targets/set=1e6/hit=true/impl=view ns/op", limit: "Targets/set=1e6/hit=true/impl=map ns/op", goal: 0.4},
			{what: "allocations, misses", measured: "Targets/set=1e6/hit=false/impl=view allocs/op"},
			{what: "allocations, hits", measured: "Targets/set=1e6/hit=true/impl=view allocs/op"},
		},
	},
	{
		name: "memory", pkg: guardPkg + "/revoke", pattern: "BenchmarkMerge/set=1e6/impl=view", time: "1x",
		rows: []row{{what: "heap bytes a cut, after a collection", measured: "Merge/set=1e6/impl=view heap-bytes/cut", goal: 48}},
	},
	{
		name: "writers", pkg: guardPkg + "/revoke", pattern: "BenchmarkTargetsBesideAWriter", time: "1s",
		rows: []row{{what: "look-ups beside a writer that merges without a pause", measured: "TargetsBesideAWriter/writer=true ns/op", limit: "TargetsBesideAWriter/writer=false ns/op", goal: 2}},
	},
	{
		name: "decide", pkg: guardPkg, pattern: "BenchmarkDecide", time: "1s",
		rows: []row{
			{what: "decision, token seen before: times faster than golang-jwt", measured: "Decide/seen=true/impl=guard ns/op", limit: "Decide/seen=true/impl=golang-jwt ns/op", inverse: true, goal: 20, least: true},
			{what: "allocations of it", measured: "Decide/seen=true/impl=guard allocs/op"},
			{what: "decision, token not seen before", measured: "Decide/seen=false/impl=guard ns/op", limit: "Decide/seen=false/impl=golang-jwt ns/op", goal: 1.3},
		},
	},
	{
		name: "reach", pkg: "./services/bench", pattern: "BenchmarkReach", time: "1x", once: true,
		rows: []row{
			{what: "revoke sent -> refused at the last of 100 guards, median, ms", measured: "Reach/guards=100 reach-p50-ms", limit: "Reach/guards=100 bare-p50-ms", goal: 1.6},
			{what: "the same, p99, ms", measured: "Reach/guards=100 reach-p99-ms", limit: "Reach/guards=100 bare-p99-ms", goal: 1.5},
			{what: "at the last of 1,000 guards, median, ms", measured: "Reach/guards=1000 reach-p50-ms", limit: "Reach/guards=1000 bare-p50-ms", goal: 1.3},
			{what: "the same, p99, ms", measured: "Reach/guards=1000 reach-p99-ms", limit: "Reach/guards=1000 bare-p99-ms", goal: 1.5},
		},
	},
	{
		name: "http", pkg: "./services/bench", pattern: "BenchmarkHTTP", time: "1x",
		rows: []row{{what: "one revocation over HTTP, one caller, ms", measured: "HTTP revoke-ms", limit: "HTTP bare-ms", goal: 1.4}},
	},
	{
		name: "commit", pkg: "./services/bench", pattern: "BenchmarkCommit", time: "1x", once: true,
		rows: []row{
			{what: "revocations a second over NATS, one synced node, 64 callers, beside bare batches of 64", measured: "Commit/callers=64 commits/s", limit: "Commit/callers=64 bare/s", goal: 0.5, least: true},
			{what: "the same, 1,000 callers, beside batches of 1,000", measured: "Commit/callers=1000 commits/s", limit: "Commit/callers=1000 bare/s", goal: 0.4, least: true},
			{what: "over HTTP, 1,000 callers, beside a bare HTTP echo", measured: "Commit/http commits/s", limit: "Commit/http bare/s", goal: 0.5, least: true},
		},
	},
	{
		name: "start", pkg: "./services/bench", pattern: "BenchmarkStart", time: "3x", once: true,
		rows: []row{{what: "guard ready with 1,000,000 live entries, ms", measured: "Start ready-ms", limit: "Start bare-ms", goal: 3}},
	},
	{
		name: "rebuild", pkg: "./services/revocation/redisview", pattern: "BenchmarkRebuild", time: "1x",
		rows: []row{{what: "Redis view of 1,000,000 entries rebuilt, s", measured: "Rebuild/what=rebuild/states=1e6 s/rebuild", limit: "Rebuild/what=pipelined-set-px/states=1e6 s/rebuild", goal: 2}},
	},
	{
		name: "token", pkg: "./services/bench", pattern: "BenchmarkToken", time: "1x", once: true,
		rows: []row{
			{what: "tokens a second for a client, 16 callers on the same machine", measured: "Token/grant=client-credentials tokens/s", limit: "Token/grant=client-credentials bare/s", goal: 0.7, least: true},
			{what: "the same for an API key of a client's", measured: "Token/grant=exchange tokens/s", limit: "Token/grant=exchange bare/s", goal: 0.7, least: true},
			{what: "time of one exchange in the handler alone, us", measured: "Token/grant=exchange handler-us", limit: "Token/grant=exchange bare-handler-us", free: true},
			{what: "allocations of it", measured: "Token/grant=exchange allocs/token", limit: "Token/grant=exchange bare-allocs/token", free: true},
		},
	},
	{
		name: "introspect", pkg: "./services/bench", pattern: "BenchmarkIntrospect", time: "1x", once: true,
		rows: []row{
			{what: "introspections a second, 50,000 tokens, each once, 16 callers", measured: "Introspect/seen=false tokens/s", limit: "Introspect/seen=false bare/s", goal: 0.8, least: true},
			{what: "the same, 1,000 tokens again and again", measured: "Introspect/seen=true tokens/s", limit: "Introspect/seen=true bare/s", goal: 0.8, least: true},
			{what: "time of one in the handler alone, token not seen before, us", measured: "Introspect/seen=false handler-us", limit: "Introspect/seen=false bare-handler-us", free: true},
			{what: "allocations of it", measured: "Introspect/seen=false allocs/token", limit: "Introspect/seen=false bare-allocs/token", free: true},
		},
	},
	{
		name: "keys", pkg: "./services/bench", pattern: "BenchmarkKeys", time: "1x", once: true, stored: true,
		rows: []row{
			{what: "API keys stored", measured: "Keys keys", free: true},
			{what: "issuer ready with them, ms, beside their bucket read into a Go map", measured: "Keys ready-ms", limit: "Keys bare-ms", free: true},
			{what: "issuer ready without any, ms", measured: "Keys empty-ms", free: true},
			{what: "heap bytes a key, after a collection, beside that map's", measured: "Keys heap-B/key", limit: "Keys bare-heap-B/key", free: true},
			{what: "resident bytes a key", measured: "Keys rss-B/key", limit: "Keys bare-rss-B/key", free: true},
			{what: "100 keys of one owner listed over HTTP, ms, beside bare reads of them", measured: "Keys list-ms", limit: "Keys bare-list-ms", goal: 5},
		},
	},
	{
		name: "role", pkg: "./services/bench", pattern: "BenchmarkRole", time: "1x", once: true, stored: true,
		rows: []row{
			{what: "bindings of a role that is deleted", measured: "Role bindings", free: true},
			{what: "entries committed for it", measured: "Role entries", free: true},
			{what: "until it is answered, ms", measured: "Role answered-ms", free: true},
			{what: "until all its records are gone, s, beside bare reads and deletes of them", measured: "Role gone-s", limit: "Role bare-s", free: true},
		},
	},
	{
		name: "idle", pkg: "./services/bench", pattern: "BenchmarkIdle", time: "1x", once: true,
		rows: []row{{what: "messages a second of an idle guard, with one revocation replica", measured: "Idle msgs/s", goal: 1.5}},
	},
}

// figures are the values of a run by "SUB UNIT".
type figures map[string][]float64

// parse reads what go test -bench prints: name, rounds, and pairs of value and
// unit. The number of processors is cut off the name.
func parse(text string) figures {
	out := figures{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "Benchmark") {
			continue
		}
		name := strings.TrimPrefix(f[0], "Benchmark")
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			if _, err := strconv.Atoi(name[i+1:]); err == nil {
				name = name[:i]
			}
		}
		for i := 2; i+1 < len(f); i += 2 {
			if v, err := strconv.ParseFloat(f[i], 64); err == nil {
				key := name + " " + f[i+1]
				out[key] = append(out[key], v)
			}
		}
	}
	return out
}

func (f figures) median(key string) (float64, error) {
	v := slices.Sorted(slices.Values(f[key]))
	if len(v) == 0 {
		return 0, fmt.Errorf("the benchmark did not report %s", key)
	}
	return v[len(v)/2], nil
}

// line is the row as it is printed.
func (r *row) line(f figures) (string, error) {
	measured, err := f.median(r.measured)
	if err != nil {
		return "", err
	}
	if r.limit == "" && r.free {
		return fmt.Sprintf("%s\t%s\t\t\t\t", r.what, number(measured)), nil
	}
	if r.limit == "" {
		return fmt.Sprintf("%s\t%s\t\t\t<= %s\t%s", r.what, number(measured), number(r.goal), met(measured <= r.goal)), nil
	}
	limit, err := f.median(r.limit)
	if err != nil {
		return "", err
	}
	if r.plus {
		return fmt.Sprintf("%s\t%s\t%s\t%+.2f\t<= +%s\t%s", r.what, number(measured), number(limit), measured-limit, number(r.goal), met(measured-limit <= r.goal)), nil
	}
	ratio := measured / limit
	if r.inverse {
		ratio = limit / measured
	}
	if r.free {
		return fmt.Sprintf("%s\t%s\t%s\t%.2f\t\t", r.what, number(measured), number(limit), ratio), nil
	}
	sign, ok := "<=", ratio <= r.goal
	if r.least {
		sign, ok = ">=", ratio >= r.goal
	}
	return fmt.Sprintf("%s\t%s\t%s\t%.2f\t%s %s\t%s", r.what, number(measured), number(limit), ratio, sign, number(r.goal), met(ok)), nil
}

func met(ok bool) string {
	if ok {
		return "met"
	}
	return "MISSED"
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }
