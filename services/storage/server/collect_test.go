package server_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/server"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// TestItCollectsByItself: as often as it is told, also after a pass that failed, and not once more
// after its end.
func TestItCollectsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := storagetest.NewMemory(small())
		var passes atomic.Int64
		store.FailWith(storagetest.Fail{Before: func(method string) error {
			if method != "Collect" {
				return nil
			}
			if passes.Add(1) == 1 {
				return errors.New("the disk is away")
			}
			return nil
		}})
		ctx := t.Context()
		p := storage.Put{Account: storagetest.Alice(), Kind: cid.File,
			Expires: time.Now().Add(time.Minute)}
		ref := storagetest.MustPut(t, store, p, []byte("short")).Ref
		s, err := server.New(server.Config{CollectEvery: time.Hour},
			server.Deps{Store: store, Limits: small()})
		if err != nil {
			t.Fatal(err)
		}
		run, stop := context.WithCancel(ctx)
		done := make(chan error, 1)
		go func() { done <- s.Run(run, func() {}) }()
		time.Sleep(90 * time.Minute)
		if _, err := store.Stat(ctx, p.Account, ref.CID); err != nil || passes.Load() != 1 {
			t.Errorf("after a failed pass: %v, %d passes", err, passes.Load())
		}
		time.Sleep(time.Hour)
		if _, err := store.Stat(ctx, p.Account, ref.CID); !errors.Is(err, storage.ReasonNotFound) {
			t.Errorf("after a good pass: %v, %d passes", err, passes.Load())
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		time.Sleep(3 * time.Hour)
		if passes.Load() != 2 {
			t.Errorf("%d passes", passes.Load())
		}
	})
}
