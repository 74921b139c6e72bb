// Package bench measures the pair beside other programs that copy between registries, and beside a floor that knows
// everything in advance, on the same data: wall time, CPU, memory, and what each asked of either registry.
//
// Each run has two real registries of its own, behind proxies that count; the source's content is made once for each
// workload. Every run ends with a comparison of both registries: a fast copy that is not equal is a failure, not a
// figure. Requests and bytes are exact; times are of a machine that does other things as well, so they are compared
// as ratios within one run.
//
//	make bench WORKLOADS=W1,W3 RUNS=3
//
// It is no test: `go test ./bench` only checks the harness itself.
package bench
