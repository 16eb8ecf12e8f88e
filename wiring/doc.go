// Package wiring puts all services of UCN into one process: a whole local network with one chain,
// one market, one storage, a gateway, and executors of two operators. It is the only place that
// knows several services.
//
// Nothing is different inside: the services speak gRPC over in-memory connections and NATS to an
// embedded broker, with the certificates and tokens that they would have on machines of their own.
package wiring
