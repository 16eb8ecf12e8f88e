package disk_test

import (
	"io"
	"testing"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/storagetest"
)

// TestStalledSendersKeepNobodyOut: more puts and appends than are written at once wait for their
// senders; others are done meanwhile.
func TestStalledSendersKeepNobodyOut(t *testing.T) {
	const stalled = 80 // more than are written at once
	d := open(t, config(t.TempDir(), storage.DefaultLimits()))
	p := storage.Put{Account: storagetest.Bob(), Kind: cid.File}
	waiting, sent, done := make(chan bool), make(chan bool), make(chan error, stalled)
	body := func() io.Reader {
		begun := false
		return readerFunc(func(b []byte) (int, error) {
			if begun {
				return 0, io.EOF
			}
			begun = true
			waiting <- true
			<-sent
			return copy(b, "late"), nil
		})
	}
	for i := range stalled {
		go func() {
			if i%4 > 0 {
				_, err := d.Put(t.Context(), p, body())
				done <- err
				return
			}
			u, err := d.StartUpload(t.Context(), p)
			if err == nil {
				_, err = d.AppendUpload(t.Context(), p.Account, u.ID, 0, body())
			} else {
				waiting <- true
			}
			done <- err
		}()
	}
	for range stalled {
		<-waiting
	}
	own := storage.Put{Account: storagetest.Alice(), Kind: cid.File}
	storagetest.MustPut(t, d, own, storagetest.Bytes(200_000, 1))
	close(sent)
	for range stalled {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
