// Torture runs a whole pair of daemons between real registries, works on the primary at random, breaks things at random
// meanwhile, and watches that nothing is promised that is not so:
//
//	go run ./torture -seed 7 -duration 2m -database sqlite
//
// What is done when, and what breaks when, follows from the seed alone and is written to the log; how the processes
// race with each other is theirs. The exit code is 0 when nothing was violated, 1 when something was, and 2 when the
// run could not be made. A run that found something leaves its folder, with the log of every process.
//
// Checked all along (watch.go, honesty.go):
//   - a tag that the primary held throughout is never missing on the site once it was there;
//   - no tag of the site serves a digest that the primary's tag never had;
//   - the site never calls a repository synced that is not, going by the two registries.
//
// Checked at the end, when the faults are gone (finish.go): both registries are equal by repository, tag, digest, graph
// and referrers, without help and within a bound; no daemon panicked, and none has goroutines, descriptors or memory
// left over, or has grown by them while it lived (leak.go).
package main
