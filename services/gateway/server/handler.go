package server

import (
	"context"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"google.golang.org/grpc/peer"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/id"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/telemetry"
	"github.com/united-containers/ucn/services/gateway"
)

const (
	requestIDHeader = "X-Request-Id"
	maxRequestID    = 64 // bytes of a request id that a client chose
	maxToken        = 4 << 10
	bearer          = "Bearer "
)

// handler is everything around the routes, outermost first: trace, deadline, request id, recovery.
func (s *Server) handler() http.Handler {
	routes := http.NewServeMux()
	routes.HandleFunc("GET /healthz", s.healthz)
	routes.HandleFunc("GET /readyz", s.readyz)
	routes.HandleFunc("GET /openapi.json", s.serveOpenAPI)
	routes.HandleFunc("GET /docs", s.docs)
	routes.HandleFunc("GET /docs/{file}", s.docsFile)
	routes.HandleFunc("GET /{$}", s.page)
	routes.HandleFunc("/v1/", s.api)
	if s.deps.Metrics != nil {
		routes.Handle("GET /metrics", s.deps.Metrics)
	}
	routes.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, routeUnknown())
	})
	return otelhttp.NewHandler(s.guarded(s.crossOrigin(routes)), "gateway",
		otelhttp.WithTracerProvider(s.deps.Tracers), otelhttp.WithMeterProvider(s.deps.Meters),
		otelhttp.WithPropagators(telemetry.Propagator()),
		otelhttp.WithFilter(func(r *http.Request) bool { // nobody wants to trace probes
			return r.URL.Path != "/healthz" && r.URL.Path != "/readyz" && r.URL.Path != "/metrics"
		}),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string {
			return spanName(r)
		}))
}

// spanName has few values: strangers choose methods and paths.
func spanName(r *http.Request) string {
	method := "OTHER"
	switch r.Method {
	case "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE":
		method = r.Method
	}
	if !strings.HasPrefix(r.URL.Path, "/v1/") {
		return method
	}
	return method + " " + gateway.Name(r.URL.Path)
}

// guarded gives every answer an id and safe headers, takes back the deadlines that the request
// before on this connection left, and turns a panic into an internal error.
func (s *Server) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set(requestIDHeader, requestID(r))
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		control := http.NewResponseController(w)
		// Neither fails on a connection of net/http; calls end well before this one. A body that no
		// route reads is read by net/http before the answer leaves: it must come as well.
		due := time.Time{}
		if r.ContentLength != 0 {
			due = time.Now().Add(s.cfg.StallTime)
		}
		_ = control.SetReadDeadline(due)
		_ = giveTime(control, s.cfg.MaxTime+s.cfg.StallTime)
		defer func() { _ = giveTime(control, s.cfg.StallTime) }() // for what is still buffered
		defer s.recovered(w, r)
		next.ServeHTTP(w, r)
	})
}

func (s *Server) recovered(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p) // the answer was cut off on purpose
	}
	s.log.ErrorContext(r.Context(), "a request panicked", "panic", p,
		"request", w.Header().Get(requestIDHeader), "stack", string(debug.Stack()))
	w.Header().Set("Connection", "close")
	s.fail(w, r, fault.New(fault.Internal, rpc.ReasonInternal,
		"internal error: give the X-Request-Id to the operator"))
}

// requestID returns the client's id for this request if it is a harmless one, or a new one.
func requestID(r *http.Request) string {
	text := r.Header.Get(requestIDHeader)
	harmless := text != "" && len(text) <= maxRequestID && strings.IndexFunc(text, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') &&
			c != '-' && c != '_' && c != '.'
	}) < 0
	if harmless {
		return text
	}
	return id.New().String()
}

// api serves what is under /v1.
func (s *Server) api(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if err := s.serveAPI(w, r); err != nil {
		s.fail(w, r, err)
	}
}

func (s *Server) serveAPI(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	route, err := gateway.Resolve(r.Method, r.URL.Path, query)
	if err != nil {
		return err
	}
	if s.limit != nil {
		if err := s.limit.Allow(withAddress(r), route.Name); err != nil {
			return err
		}
	}
	token, err := bearerToken(r.Header)
	if err != nil {
		return err
	}
	if err := s.admit(w, r, token); err != nil {
		return err
	}
	if err := s.takes.check(r); err != nil {
		return err
	}
	// Always, even when it is empty: else the connection would send the gateway's own token.
	ctx := rpc.WithToken(r.Context(), token)
	// What services bound per address is the client's, not the gateway's.
	r = r.WithContext(rpc.WithOrigin(ctx, addressOf(r)))
	switch route.Operation {
	case gateway.PutFile:
		return s.putFile(w, r)
	case gateway.GetFile:
		return s.getFile(w, r, route.File, route.Inside)
	case gateway.AppendUpload:
		return s.appendUpload(w, r, route.Upload)
	case gateway.Logs:
		return s.logs(w, r, route.Job)
	case gateway.Stats:
		return s.stats(w, r, route.Job)
	}
	asked := *r.URL
	if route.Operation == gateway.Watch && wantsEvents(r) {
		return s.watchEvents(w, r, route)
	}
	r.Header.Del("Authorization") // the stubs would pass it on beside the context's
	r.URL.Path, r.URL.RawPath, r.URL.RawQuery = route.Path, "", route.Query.Encode()
	if route.Operation == gateway.Watch {
		return s.watch(w, r, route)
	}
	return s.call(w, r, asking{&asked, token})
}

// withAddress tells a limiter whose request it is.
func withAddress(r *http.Request) context.Context {
	address, err := net.ResolveTCPAddr("tcp", r.RemoteAddr)
	if err != nil {
		return r.Context()
	}
	return peer.NewContext(r.Context(), &peer.Peer{Addr: address})
}

// bearerToken returns the token that the client sent, "" if it sent none. It is not judged here:
// each service judges it for itself.
func bearerToken(h http.Header) (string, error) {
	return tokenOf(h.Values("Authorization"))
}

func tokenOf(values []string) (string, error) {
	if len(values) == 0 {
		return "", nil
	}
	one := values[0]
	if len(values) > 1 || len(one) <= len(bearer) || !strings.EqualFold(one[:len(bearer)], bearer) ||
		len(one) > len(bearer)+maxToken || strings.ContainsAny(one[len(bearer):], " \t,") {
		return "", fault.New(fault.Unauthenticated, rpc.ReasonTokenMalformed,
			"the Authorization header is not one \"Bearer <token>\" of at most %d bytes", maxToken)
	}
	return one[len(bearer):], nil
}
