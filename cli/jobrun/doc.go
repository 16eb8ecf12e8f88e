// Package jobrun is what an owner does for a job from the signature to the bill: it signs the
// revision, opens the escrow, submits, delivers the task to the executor that holds the lease,
// checks every note of usage and countersigns it only then, fetches the outputs, takes back what is
// left of the escrow and proves what was paid.
//
// It promises that no money is forgotten on the way: when submitting fails the escrow is closed,
// when the owner interrupts it the job is cancelled and billed first. It trusts no host: what a
// host says is held against the lease on the chain and the owner's own clock (package ack), and
// files are verified against their CIDs.
//
// It shows nothing itself: what happens goes to a View.
package jobrun
