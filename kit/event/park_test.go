package event

import (
	"testing"

	eventv1 "github.com/united-containers/ucn/proto/ucn/event/v1"
)

func waiting(epoch, seq uint64, raw string) item {
	return item{in: Incoming{Envelope: &Envelope{
		Raw: []byte(raw),
		Body: &eventv1.EnvelopeBody{
			Topic: string(TopicJob), InstanceKey: make([]byte, 32), Epoch: epoch, Seq: seq,
		},
	}}}
}

// TestParkKeepsEpochsApart: the same number in two epochs is two places, and each is found from
// the cursor before it.
func TestParkKeepsEpochsApart(t *testing.T) {
	p := newPark()
	older, newer := waiting(1, 5, "old"), waiting(2, 5, "newer")
	line := older.in.Line()
	if !p.add(older) || !p.add(newer) || p.count != 2 || p.bytes != len("oldnewer") {
		t.Fatalf("%d items of %d bytes, want both", p.count, p.bytes)
	}
	for _, c := range []struct {
		cursor Cursor
		want   string
	}{
		{Cursor{Head: Head{Epoch: 2, Seq: 4}}, "newer"},
		{Cursor{Head: Head{Seq: 4}}, "old"}, // a cursor that never moved is in the first epoch
	} {
		it, ok := p.remove(line, c.cursor.next())
		if !ok || string(it.in.Raw) != c.want {
			t.Errorf("epoch %d: got %v, want %s", c.cursor.Epoch, ok, c.want)
		}
	}
	if p.count != 0 || p.bytes != 0 || len(p.lines) != 0 {
		t.Errorf("%d items of %d bytes are left", p.count, p.bytes)
	}
}
