package server

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/united-containers/ucn/kit/rpc"
)

// healthz says that the process answers.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := w.Write([]byte("ok\n"))
	s.wrote(r, err)
}

// readiness is the body of /readyz.
type readiness struct {
	Ready bool `json:"ready"`
	// Peers maps each service to "serving", or to what is wrong.
	Peers map[string]string `json:"peers"`
}

// readyz says whether requests can be served: every peer answers that it serves, and the gateway
// is not stopping. Who may not connect to the peers themselves learns only that.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(rpc.WithToken(r.Context(), ""), readinessTime)
	defer cancel()
	peers := s.peers()
	said := make([]string, len(peers))
	var wait sync.WaitGroup
	for i, p := range peers {
		wait.Go(func() { said[i] = health(ctx, p) })
	}
	wait.Wait()
	out := readiness{Ready: s.draining.Err() == nil, Peers: map[string]string{}}
	for i, p := range peers {
		out.Peers[p.Name] = said[i]
		out.Ready = out.Ready && said[i] == serving
	}
	code := http.StatusOK
	if !out.Ready {
		code = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	s.wrote(r, json.NewEncoder(w).Encode(out))
}

const (
	serving    = "serving"
	notServing = "not serving"
	noAnswer   = "does not answer"
)

func health(ctx context.Context, p Peer) string {
	got, err := healthpb.NewHealthClient(p.Conn).Check(ctx,
		&healthpb.HealthCheckRequest{Service: p.Service})
	switch {
	case err != nil:
		return noAnswer
	case got.GetStatus() != healthpb.HealthCheckResponse_SERVING:
		return notServing
	}
	return serving
}
