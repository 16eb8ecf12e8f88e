package podman

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// TestWordsStaySmall: what the engine's service says takes no disk without end, whichever life
// started it.
func TestWordsStaySmall(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		closing, cancel := context.WithCancel(t.Context())
		i := &Instance{closing: closing}
		i.cfg.Dir, i.cfg.Log = dir, slog.New(slog.DiscardHandler)
		s := newService(i)
		go s.keepWords()
		file := filepath.Join(dir, wordsFile)
		for _, tt := range []struct{ bytes, left int64 }{
			{wordsMost, wordsMost}, {wordsMost + 1, 0}, {10, 10},
		} {
			if err := os.WriteFile(file, make([]byte, tt.bytes), 0o600); err != nil {
				t.Fatal(err)
			}
			timer := time.NewTimer(wordsEvery + time.Second)
			<-timer.C
			synctest.Wait()
			if info, err := os.Stat(file); err != nil || info.Size() != tt.left {
				t.Errorf("of %d bytes %d are left, %v", tt.bytes, info.Size(), err)
			}
		}
		cancel()
	})
}
