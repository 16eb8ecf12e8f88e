package server

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

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
	peers := s.peers()
	said := s.ready.ask(r.Context(), s.deps.Now, peers)
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

// knownReady is how long what peers said is told again: anybody may ask, and one who asks without
// end shall not make the gateway ask all of them each time.
const knownReady = time.Second

// ready remembers what peers said of themselves.
type ready struct {
	check func(context.Context, Peer) string // asks one

	mu   sync.Mutex // guards what follows; held while they are asked, at most readinessTime
	at   time.Time
	said []string
}

// ask returns what each peer says, now or up to knownReady ago. One that asks for it and leaves
// does not spoil it for others.
func (a *ready) ask(ctx context.Context, now func() time.Time, peers []Peer) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if age := now().Sub(a.at); a.said != nil && age < knownReady && age > -knownReady {
		return a.said
	}
	ctx, cancel := context.WithTimeout(rpc.WithToken(context.WithoutCancel(ctx), ""), readinessTime)
	defer cancel()
	said := make([]string, len(peers))
	var wait sync.WaitGroup
	for i, p := range peers {
		wait.Go(func() { said[i] = a.check(ctx, p) })
	}
	wait.Wait()
	a.at, a.said = now(), said // not changed any more
	return said
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
