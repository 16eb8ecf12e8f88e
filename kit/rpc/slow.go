package rpc

import (
	"context"
	"sync"
	"time"

	"github.com/united-containers/ucn/kit/share"
)

// slowRequest is after how long a message that is awaited needs a place. gRPC keeps what has come
// of it, which may be all but its last byte.
const slowRequest = 2 * time.Second

// newSlow returns places for slow messages: as many as there is room for if all are as large as
// they may be, half of them of one address.
func newSlow(cfg ServerConfig) *share.Places {
	most := max(int(cfg.MaxRequests/cfg.MaxMessage), 1)
	const ofOne = 2
	return share.New(share.Bounds{Most: most, Each: max(most/ofOne, 1), Keep: 1})
}

// slow is a message that is awaited.
type slow struct {
	mu    sync.Mutex // guards both
	over  bool
	place *share.Place
}

// await notes that a call awaits a message, until it is over. One that takes long has the call
// ended if it finds no place, or must give way to that of an address that has fewer.
func (s *Server) await(ctx context.Context) (over func()) {
	who := CallOrigin(ctx)
	if who == "" {
		return func() {}
	}
	w := &slow{}
	timer := time.AfterFunc(slowRequest, func() {
		end := func() { leave(ctx, context.Canceled) }
		place, err := s.slow.TakeIn(Network(who), who, end)
		if err != nil {
			end()
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.over {
			place.Give()
			return
		}
		w.place = place
	})
	return func() {
		if !timer.Stop() {
			w.end()
		}
	}
}

func (w *slow) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over = true
	if w.place != nil {
		w.place.Give()
	}
}
