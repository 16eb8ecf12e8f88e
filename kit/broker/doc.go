// Package broker runs a NATS server with JetStream inside this process, so that one binary is a
// whole network.
//
// Own services connect through memory with full rights, by a secret that this process makes and
// never shows. Others come over an optional listener: people and programs with an access token of
// scope "bus", which lets them ask instances and hear replies and nothing else; instances of known
// operators with their certificate, which also lets them answer, publish their own events and read
// streams.
//
// An instance that is let in is trusted with the streams: a NATS server publishes its answers on
// whatever subject a request names for them, without asking whether who requested might publish
// there, so that JetStream can be made to send itself the order to purge or delete a stream. What
// is lost then is transport and cache, never the record. Deps.Operators says who is let in. People
// and programs with a token cannot reach JetStream at all.
//
// Nothing in UCN trusts a broker: it can lose, repeat, reorder and read sizes, but not forge. It
// makes one stream of events per service kind. It forms no clusters: operators who need that run
// nats-server themselves and give bus.Connect its address.
package broker
