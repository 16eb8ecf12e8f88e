// Package server is how others reach an executor: its methods on the bus (Ask, Task, Acknowledge,
// Logs, Stop, Stats), the gRPC ExecutorService of the host's operator, and the wire forms of
// leases, notes, statuses and offers, which it signs and verifies.
//
// It promises that nothing reaches the agent before the caller is proven, the revision is signed
// by the owner it names, and every field has its form and size. It decides nothing itself.
package server
