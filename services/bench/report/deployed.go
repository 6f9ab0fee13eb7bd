package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/quash-project/quash/services/deployment"
)

// deployed are the benchmarks against a deployment: separate processes, three synced
// nodes of NATS, TLS. Each starts one for itself, since what it does to it would
// be felt by the next.
var deployed = []benchmark{
	{
		name: "commit", pattern: "BenchmarkDeploymentCommit",
		rows: []row{
			{what: "revocations a second over NATS, 64 callers, beside 64 bare publishers", measured: "DeploymentCommit commits/s", limit: "DeploymentCommit bare/s", goal: 0.5, least: true},
			{what: "the same over HTTPS", measured: "DeploymentCommit http/s", limit: "DeploymentCommit bare/s", goal: 0.5, least: true},
		},
	},
	{
		name: "reach", pattern: "BenchmarkDeploymentReach",
		rows: []row{
			{what: "revoke over HTTPS -> refused at the last of 100 guards, median, ms", measured: "DeploymentReach reach-p50-ms", limit: "DeploymentReach bare-p50-ms", goal: 2},
			{what: "the same, p99, ms", measured: "DeploymentReach reach-p99-ms", limit: "DeploymentReach bare-p99-ms", goal: 2},
		},
	},
	{
		name: "fleet", pattern: "BenchmarkDeploymentFleet",
		rows: []row{
			{what: "probes and reports a second at a service process, 10,000 guards, nothing revoked", measured: "DeploymentFleet idle-msgs/s", goal: 3000},
			{what: "the same after one revocation, in the busiest second", measured: "DeploymentFleet peak-msgs/s", goal: 3000},
			{what: "the same with one revocation after the other", measured: "DeploymentFleet busy-msgs/s", goal: 3000},
			{what: "answer to one revocation complete, the slowest of 3, s", measured: "DeploymentFleet complete-s", goal: 6},
			{what: "the greatest staleness of those guards meanwhile, s", measured: "DeploymentFleet stale-s", goal: 15},
		},
	},
	{
		name: "redis", pattern: "BenchmarkDeploymentRedis",
		rows: []row{
			{what: "decision by Redis alone, median, us, beside the bare MGET", measured: "DeploymentRedis decide-us", limit: "DeploymentRedis mget-us", goal: 1.2},
			{what: "the greatest staleness that it claims, s, beside a beat", measured: "DeploymentRedis stalest-s", limit: "DeploymentRedis beat-s", goal: 3},
		},
	},
	{
		name: "leader", pattern: "BenchmarkDeploymentLeader",
		rows: []row{
			{what: "the log's leader killed: commits refused, median, s, beside bare streams", measured: "DeploymentLeader refused-s", limit: "DeploymentLeader bare-s", plus: true, goal: 0.5},
			{what: "the most that commits were refused longer than bare ticks into the log, s", measured: "DeploymentLeader most-more-s", goal: 0.5},
			{what: "decisions denied meanwhile, by 22 guards with the default limit", measured: "DeploymentLeader denied"},
		},
	},
	{
		name: "issue", pattern: "BenchmarkDeploymentIssue",
		rows: []row{{what: "API key exchanges a second, two replicas, load on the same machine", measured: "DeploymentIssue tokens/s", limit: "DeploymentIssue bare/s", goal: 0.5, least: true}},
	},
}

// benchPkg is where they are.
const benchPkg = "./services/bench"

// build makes, once for all of them, what a deployment runs and what measures it.
func build(ctx context.Context) (dir string, err error) {
	if dir, err = os.MkdirTemp("", "quash-bench"); err != nil {
		return "", err
	}
	if err = deployment.Build(ctx, ".", dir); err != nil {
		return dir, err
	}
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", filepath.Join(dir, "bench.test"), benchPkg).CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go test -c: %w\n%s", err, out)
	}
	return dir, nil
}

// deployedCommand measures one of them.
func deployedCommand(b *benchmark, programs string, count int) *exec.Cmd {
	cmd := exec.Command(filepath.Join(programs, "bench.test"), "-test.run", "^$", "-test.bench", b.pattern+"$",
		"-test.benchtime", "1x", "-test.timeout", "30m", "-test.count", fmt.Sprint(count))
	cmd.Dir = filepath.FromSlash(benchPkg)
	cmd.Env = append(os.Environ(), "QUASH_BENCH_PROGRAMS="+programs)
	return cmd
}
