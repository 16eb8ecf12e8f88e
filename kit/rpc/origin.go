package rpc

import (
	"context"
	"maps"
	"net"
	"net/netip"

	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// OriginSource has a gateway tell its operator's services where its callers come from.
type OriginSource interface {
	// Vouch returns what proves to the named service that a call is in the name of somebody at an
	// address; nil when that service is not to be told. Safe for concurrent use; called once per RPC,
	// so it caches.
	Vouch(service, address string) ([]byte, error)
}

// OriginJudge judges what an OriginSource said.
type OriginJudge interface {
	// Origin returns the address that is vouched for. An error means that this is not believed, which
	// refuses no call: then it comes from where it comes from. Safe for concurrent use.
	Origin(ctx context.Context, vouched []byte) (string, error)
}

type (
	behindKey struct{} // whom a gateway calls for
	originKey struct{} // of whom a call is, as believed
)

// WithOrigin returns ctx so that calls made with it are in the name of somebody at an address, if
// the client's connection vouches for origins.
func WithOrigin(ctx context.Context, address string) context.Context {
	return context.WithValue(ctx, behindKey{}, Origin(address))
}

// CallOrigin returns the Origin of who makes a call: what a gateway of this operator vouches for,
// else its connection's address; "" for a call from this process.
func CallOrigin(ctx context.Context) string {
	if vouched, ok := ctx.Value(originKey{}).(string); ok {
		return vouched
	}
	if p, ok := peer.FromContext(ctx); ok {
		if host, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
			return Origin(host)
		}
	}
	return ""
}

// vouch puts where the caller comes from into the outgoing metadata. Nobody else's word of that
// goes out.
func (c *client) vouch(ctx context.Context) (context.Context, error) {
	address, known := ctx.Value(behindKey{}).(string)
	var vouched []byte
	if known && c.origins != nil {
		var err error
		if vouched, err = c.origins.Vouch(c.service, address); err != nil {
			return nil, err
		}
	}
	outgoing, _ := metadata.FromOutgoingContext(ctx)
	if vouched == nil && len(outgoing.Get(originName)) == 0 {
		return ctx, nil
	}
	headers := metadata.MD{}
	maps.Copy(headers, outgoing)
	delete(headers, originName)
	if vouched != nil {
		headers.Set(originName, string(vouched))
	}
	return metadata.NewOutgoingContext(ctx, headers), nil
}

// from notes where a call comes from, if somebody who is believed vouches for that.
func (s *Server) from(ctx context.Context, method string) context.Context {
	values := metadata.ValueFromIncomingContext(ctx, originName)
	if s.deps.Origins == nil || len(values) != 1 || len(values[0]) > maxOrigin {
		return ctx
	}
	bounded, cancel := context.WithTimeout(ctx, authTimeout)
	defer cancel()
	address, err := s.deps.Origins.Origin(bounded, []byte(values[0]))
	if err != nil {
		s.log.DebugContext(ctx, "nobody believes where a call comes from", "method", method,
			"error", err)
		return ctx
	}
	return context.WithValue(ctx, originKey{}, address)
}

// sitePrefix is how much of an IPv6 address is somebody's: whoever has one address has all that
// share its first 64 bits (RFC 6177).
const sitePrefix = 64

// Origin is what limits per address count together: an IPv4 address, or the /64 of an IPv6 one.
// addr is an address, or one with its port; what is neither stands for itself.
func Origin(addr string) string {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		pair, err := netip.ParseAddrPort(addr)
		if err != nil {
			return addr
		}
		ip = pair.Addr()
	}
	if ip = ip.Unmap().WithZone(""); ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.Prefix(sitePrefix)
	if err != nil {
		panic(err) // an IPv6 address has 64 bits
	}
	return prefix.String()
}

// networkPrefix is how much of an IPv6 address is a site's at most (RFC 6177), whose /64 are its to
// choose.
const networkPrefix = 48

// Network is what counts as one where origins compete: the /48 of an IPv6 Origin. What is none of
// these stands for itself.
func Network(origin string) string {
	prefix, err := netip.ParsePrefix(origin)
	if err != nil || prefix.Bits() < networkPrefix {
		return origin
	}
	if prefix, err = prefix.Addr().Prefix(networkPrefix); err != nil {
		return origin // an IPv4 prefix is no Origin
	}
	return prefix.String()
}
