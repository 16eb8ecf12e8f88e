package wire

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/united-containers/ucn/kit/bus"
	"github.com/united-containers/ucn/kit/event"
	events "github.com/united-containers/ucn/kit/event/pebble"
	"github.com/united-containers/ucn/kit/event/refetch"
	"github.com/united-containers/ucn/kit/instance"
	"github.com/united-containers/ucn/services/storage"
	"github.com/united-containers/ucn/services/storage/disk"
	"github.com/united-containers/ucn/services/storage/server"
)

// outbox turns what happens in the store into events of its index.
type outbox struct {
	events *events.Outbox
	chain  string
}

var _ disk.Outbox = outbox{}

// Append implements disk.Outbox.
func (o outbox) Append(batch *pebble.Batch, e storage.Event) error {
	out, err := server.EventOf(e, o.chain)
	if err == nil {
		err = o.events.Append(batch, out)
	}
	if errors.Is(err, event.ErrFull) {
		return storage.Untold(err)
	}
	return err
}

func (s *Storage) openOutbox(chain string) disk.OpenOutbox {
	return func(db *pebble.DB, prefix string, room func() error) (disk.Outbox, error) {
		box, err := events.NewOutbox(db, prefix)
		if err != nil {
			return nil, err
		}
		box.KeepRoom(room)
		box.KeepLast(disk.EventsKept)
		s.outbox = box
		return outbox{box, chain}, nil
	}
}

// speak prepares to say to peers what happens, and to say it again to those who missed it. An
// instance without a broker keeps it in its outbox.
func (s *Storage) speak(i *instance.Instance) (err error) {
	if i.Connect == nil {
		return nil
	}
	if s.conn, err = i.Connect("storage"); err != nil {
		return fmt.Errorf("connect to the broker: %w", err)
	}
	js, err := jetstream.New(s.conn)
	if err != nil {
		return fmt.Errorf("use the broker's streams: %w", err)
	}
	signer, err := i.EventSigner()
	if err != nil {
		return err
	}
	s.publisher, err = event.NewPublisher(event.PublisherConfig{
		Queue: s.outbox, Signer: signer, JetStream: js, Clock: i.Now, Log: i.Telemetry.Log,
		Epoch: i.Epoch,
	})
	if err != nil {
		return err
	}
	s.bus, err = bus.NewServer(s.conn, i.Identity, i.Authenticator(), bus.Options{
		Log: i.Telemetry.Log, Clock: i.Now,
	})
	if err == nil {
		refetch.Serve(s.bus, i.Certificate, s.outbox)
	}
	return err
}
