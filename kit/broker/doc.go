// Package broker runs a NATS server with JetStream inside this process, so that one binary is a
// whole network.
//
// Own services connect through memory, by a secret that this process makes and never shows. Others
// come over an optional listener: people and programs with an access token of scope "bus", which
// lets them ask instances and hear replies and nothing else; instances of known operators with
// their certificate, which also lets them answer, publish their own events and read streams.
//
// All of them talk in one account of the server; the streams are in another, which only the broker
// itself enters. Between the two stands a warden of ours, since a NATS server publishes its answers
// on whatever subject a request names for them, without asking whether who requested might publish
// there. Nobody but the broker makes, changes, purges or deletes streams. docs/design/0006 says
// why.
//
// Nothing in UCN trusts a broker: it can lose, repeat, reorder and read sizes, but not forge. It
// makes one stream of events per service kind. It forms no clusters: operators who need that run
// nats-server themselves and give bus.Connect its address.
package broker
