// Package scheduler is the market of UCN: it knows jobs that want to run and offers of hosts, and
// brings them together.
//
// It promises that a job which was taken is never forgotten; that every state carries a reason a
// person can read; that one owner's thousands of runs do not keep another's single run waiting;
// that a run has one paid attempt at a time; and that a restart at any moment neither loses a
// lease nor makes a second one for the same attempt.
//
// It does not hold money, run containers or keep logs: leases stand on the chain, hosts answer for
// what they run, and results travel between client and host without passing here. When the
// scheduler is away, what runs goes on.
//
// This package is the rules and the seams. server speaks gRPC and events, pebble stores, wire puts
// them together.
package scheduler
