package registry

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	dialWait   = 10 * time.Second
	headerWait = 30 * time.Second
	idleWait   = 30 * time.Second
	maxHeader  = 64 << 10 // bytes of an answer's header
	maxIdle    = 8        // connections kept open for the next blob
)

// addressError is an address or scheme that is not connected to.
type addressError struct {
	what  string
	plain bool // the scheme: no TLS
}

func (e *addressError) Error() string { return "registry: " + e.what + " is not allowed" }

// guard is a transport that goes nowhere it should not, and bounds what is no blob.
type guard struct {
	inner    *http.Transport
	insecure []string
}

func newGuard(o Options) *guard {
	dialer := &net.Dialer{Timeout: dialWait}
	if !o.Private {
		dialer.ControlContext = public
	}
	return &guard{insecure: o.Insecure, inner: &http.Transport{
		DialContext: dialer.DialContext, TLSHandshakeTimeout: dialWait, ForceAttemptHTTP2: true,
		ResponseHeaderTimeout: headerWait, IdleConnTimeout: idleWait, MaxIdleConns: maxIdle,
		MaxResponseHeaderBytes: maxHeader, DisableCompression: true,
	}}
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !slices.Contains(g.insecure, r.URL.Host) {
		return nil, &addressError{"no TLS", true}
	}
	answer, err := g.inner.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(r.URL.Path, "/blobs/") && r.Context().Value(blobKey{}) == nil {
		answer.Body = &limited{answer.Body, MaxManifest + 1}
	}
	return answer, nil
}

// blobKey marks requests whose answer may be long: redirects of a blob lose its path.
type blobKey struct{}

// limited ends a body that is longer than it may be.
type limited struct {
	io.ReadCloser
	left int64
}

// Read implements io.Reader.
func (l *limited) Read(p []byte) (int, error) {
	if l.left <= 0 {
		return 0, refuse(ReasonTooLarge, "an answer of the registry has more than %d bytes",
			MaxManifest)
	}
	n, err := l.ReadCloser.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

// public lets connections to public addresses through. It sees the address that is dialed.
func public(_ context.Context, _, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("read the dialed address: %w", err)
	}
	if !isPublic(at.Addr()) {
		return &addressError{"address " + at.Addr().String(), false}
	}
	return nil
}

// isPublic tells whether everybody's hosts may be there: neither this host nor a network of its
// own, nor an address that a gateway would translate into one.
func isPublic(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return false
	}
	return !slices.ContainsFunc(special(), func(p netip.Prefix) bool { return p.Contains(a) })
}

// special lists the ranges of the IANA special-purpose registries that the standard library takes
// for global.
func special() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
		netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
		netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("203.0.113.0/24"),
		netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("::/96"),
		netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"),
		netip.MustParsePrefix("100::/64"), netip.MustParsePrefix("2001::/23"),
		netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"),
		netip.MustParsePrefix("fec0::/10"),
	}
}
