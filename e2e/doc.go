// Package e2e holds the tests of the whole: the two daemons as processes of their own, between real registries, seen
// from outside through the registries' API, gRPC, HTTP and the command line.
//
// A test begins with newPair, which starts everything and says what can be done to it. What is deterministic in one
// process belongs to the tests of its package; here is what only the whole can show.
package e2e
