// Package bus asks instances to do something, over NATS core subjects, so that a host needs no open
// port: request and one reply (Call), or request and a stream of replies (Stream).
//
// A request is sealed to the instance's seal key and carries a token or an instance's certificate
// and signature; replies are sealed to a key of this one call and signed by the instance. So
// brokers see sizes and times only, and nobody else can ask or answer in another's name. Each
// request id is answered at most once while it is valid.
//
// Delivery is at most once: what a broker loses is noticed (a deadline, a gap in seq, silence), not
// repaired. Callers ask again; handlers whose effect must not happen twice recognise it by their
// own ids, because a server that restarts forgets which requests it has seen.
//
// A stream is kept alive from both ends. The server sends an empty reply when it has said nothing
// for a while; the client says how far it has read, which also lets the server send on: at most
// Window replies are on their way. A client that leaves says so, one that dies is noticed by its
// silence; both end the handler's context.
package bus
