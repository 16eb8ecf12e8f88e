package fetch

import (
	"context"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	storagev1 "github.com/united-containers/ucn/proto/ucn/storage/v1"
	"github.com/united-containers/ucn/services/executor"
)

// silent is a storage that sends one chunk and then nothing.
type silent struct {
	ctx  context.Context
	sent bool
}

func (s *silent) Recv() (*storagev1.GetResponse, error) {
	if !s.sent {
		s.sent = true
		return &storagev1.GetResponse{Part: &storagev1.GetResponse_Chunk{Chunk: []byte("abc")}}, nil
	}
	<-s.ctx.Done()
	return nil, s.ctx.Err()
}

func TestStalledStorageIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		d := newDownload(&silent{ctx: ctx}, cancel)
		buf := make([]byte, 8)
		if n, err := d.Read(buf); n != 3 || err != nil {
			t.Fatalf("read %d, %v", n, err)
		}
		timer := time.NewTimer(2 * stallWait) // a slow reader is not storage's fault
		<-timer.C
		if ctx.Err() != nil {
			t.Error("given up although nobody waited for storage")
		}
		if _, err := d.Read(buf); !errors.Is(err, errStalled) {
			t.Errorf("read %v, want stalled", err)
		}
	})
}

func TestNoRoom(t *testing.T) {
	for _, size := range []uint64{1 << 60, math.MaxUint64} {
		if err := roomFor(t.TempDir(), size); !errors.Is(err, executor.ErrFileTooBig) {
			t.Errorf("an input of %d bytes: %v", size, err)
		}
	}
	if err := roomFor(t.TempDir(), 1); err != nil {
		t.Errorf("an input of one byte: %v", err)
	}
}
