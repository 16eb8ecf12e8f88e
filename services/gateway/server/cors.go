package server

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/united-containers/ucn/kit/config"
)

// Bounds and values of cross-origin requests (WHATWG Fetch, section 3.3).
const (
	maxOrigins     = 64
	anyOrigin      = "*"
	anyPort        = ":*"
	preflightAge   = "600" // seconds a browser may remember an answer
	allowedMethods = "GET, HEAD, POST, PUT, PATCH, DELETE"
	allowedHeaders = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Range, If-Range, " +
		"If-None-Match, Upload-Offset, Ucn-Executor-Token, X-Request-Id, Traceparent"
	exposedHeaders = "Content-Range, ETag, Link, Location, RateLimit, RateLimit-Policy, " +
		"Retry-After, Upload-Offset, X-Request-Id, Idempotency-Replayed"
)

// checkOrigins refuses what is no origin: "https://host[:port]", with ":*" for any port, or "*".
func checkOrigins(origins []string) error {
	if len(origins) > maxOrigins {
		return config.Invalid("cors_origins", "%d origins, at most %d", len(origins), maxOrigins)
	}
	for _, origin := range origins {
		if origin == anyOrigin {
			continue
		}
		u, err := url.Parse(strings.TrimSuffix(origin, anyPort))
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" ||
			u.Scheme+"://"+u.Host != strings.TrimSuffix(origin, anyPort) {
			return config.Invalid("cors_origins", "%q is neither %q nor like "+
				"https://app.example.org or http://localhost:*", origin, anyOrigin)
		}
	}
	return nil
}

// allowed tells whether pages of an origin may read answers. Credentials of browsers (cookies) are
// never allowed: tokens come in a header that a page must know.
func (c Config) allowed(origin string) bool {
	return slices.ContainsFunc(c.CORSOrigins, func(one string) bool {
		base, wild := strings.CutSuffix(one, anyPort)
		if !wild {
			return one == anyOrigin || one == origin
		}
		port, ok := strings.CutPrefix(origin, base+":")
		return origin == base || ok && port != "" && strings.Trim(port, "0123456789") == ""
	})
}

// crossOrigin adds what a browser wants to see, and answers its question before a request.
func (s *Server) crossOrigin(next http.Handler) http.Handler {
	if len(s.cfg.CORSOrigins) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		if origin == "" || !s.cfg.allowed(origin) {
			next.ServeHTTP(w, r)
			return
		}
		header.Set("Access-Control-Allow-Origin", origin)
		header.Set("Access-Control-Expose-Headers", exposedHeaders)
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			header.Set("Access-Control-Allow-Methods", allowedMethods)
			header.Set("Access-Control-Allow-Headers", allowedHeaders)
			header.Set("Access-Control-Max-Age", preflightAge)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}
