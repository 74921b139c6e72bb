// Package registrytest gives tests real registries to work against: CNCF distribution and Debian's docker-registry as
// child processes on loopback, an in-process registry with the referrers API, a recording and fault-injecting proxy to
// put in front of any of them, makers of deterministic content, and a plain HTTP client that pushes and compares it.
//
// It guarantees that a registry answers when its constructor returns, that it keeps its port and its storage over
// [Process.Kill] and [Process.Start], and that nothing outlives the test: children die with the test binary too, even
// when it is killed. It shares no code with the packages under test, so a mistake there cannot hide itself here.
//
// It refuses to skip: a registry binary that is missing fails the test and says how to get it.
package registrytest
