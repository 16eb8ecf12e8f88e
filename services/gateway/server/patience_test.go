package server

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// deadlines notes what deadlines a body's connection is given.
type deadlines struct {
	*httptest.ResponseRecorder
	given []time.Time
}

// SetReadDeadline implements what http.ResponseController looks for.
func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.given = append(d.given, t)
	return nil
}

// slowBody gives leastProgress each 50 s.
type slowBody struct{ left int }

// Read implements io.Reader.
func (b *slowBody) Read(p []byte) (int, error) {
	if b.left--; b.left < 0 {
		return 0, io.EOF
	}
	time.Sleep(50 * time.Second)
	return min(len(p), leastProgress), nil
}

// Close implements io.Closer.
func (*slowBody) Close() error { return nil }

// TestBodiesInMemoryAreHasty: a body that lies in memory meanwhile has a time as a whole, a file
// that goes on to a disk has one for each piece.
func TestBodiesInMemoryAreHasty(t *testing.T) {
	for name, c := range map[string]struct {
		of   func(http.ResponseWriter, io.ReadCloser, time.Duration) *patient
		want []time.Duration
	}{
		"in memory": {newHasty, []time.Duration{60, 61, 62}},
		"a file":    {newPatient, []time.Duration{60, 110, 160}},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
			p := c.of(d, &slowBody{left: 2}, time.Minute)
			piece, err := make([]byte, leastProgress), error(nil)
			for err == nil {
				_, err = p.Read(piece)
			}
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			if len(d.given) != 4 || !d.given[3].IsZero() {
				t.Fatalf("%s: deadlines %v", name, d.given)
			}
			for i, want := range c.want {
				if got := d.given[i].Sub(began); got != want*time.Second {
					t.Errorf("%s: deadline %d after %v, want %v", name, i, got, want*time.Second)
				}
			}
		})
	}
}
