package rpc

import "net/netip"

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
