// Package event carries signed, hash-linked envelopes from one instance to many readers.
//
// A service says something by appending an Event to its Outbox in the same transaction as the
// change it tells of. The Publisher gives each event its place in the line of its topic (epoch,
// seq, hash of the one before), signs it with the instance key, writes the envelope down durably,
// and only then sends it to JetStream, in order. So an instance never signs two envelopes for one
// place, whenever it is killed; what is sent twice is the same bytes.
//
// A Consumer reads a JetStream stream and believes nothing the broker says: it checks canonical
// bytes, signature, certificate, operator, service, and that seq and prev go on where its own
// cursor stands. The cursor moves in the transaction that holds the effect, so every event takes
// effect exactly once per store. Duplicates are dropped; a gap or a fork is a named error
// (GapError, ForkError) that goes to a hook.
//
// It promises order within one line (instance, topic) and nothing between lines. It does not keep
// events for ever: a stream is transport and cache. Logs and results of jobs never travel here.
package event
