package disk

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
)

// EventsKept is how many events an outbox keeps for those who missed some: some 500 MB.
const EventsKept = 1 << 20

// maxTold bounds the holders of one damaged blob that are told of.
const maxTold = 1000

// Outbox puts what is to be told into the batch that makes it so. Its error gives the batch up.
type Outbox interface {
	Append(batch *pebble.Batch, e storage.Event) error
}

// OpenOutbox opens the outbox under a prefix of the index. room must be asked before it writes on
// its own.
type OpenOutbox func(db *pebble.DB, prefix string, room func() error) (Outbox, error)

func (d *Disk) openOutbox() error {
	key, _, err := d.get([]byte{keyBlind})
	if err != nil {
		return err
	}
	if len(key) != len(d.blind) {
		return fmt.Errorf("storage index: the key of events has %d bytes", len(key))
	}
	d.blind = cid.BlindKey(key)
	if d.cfg.Outbox == nil {
		return nil
	}
	d.outbox, err = d.cfg.Outbox(d.db, string(keyOutbox), func() error {
		return d.room(0, indexRoom)
	})
	return err
}

// BlindKey returns the key under which events name the account's blobs.
func (d *Disk) BlindKey(a storage.Account) cid.BlindKey { return d.blind.Of(a[:]) }

// tell puts events into a batch.
func (d *Disk) tell(b *pebble.Batch, events []storage.Event) error {
	if d.outbox == nil {
		return nil
	}
	for _, e := range events {
		if err := d.outbox.Append(b, e); err != nil {
			return err
		}
	}
	return nil
}

func (d *Disk) eventOf(a storage.Account, what storage.What, ref storage.Ref) storage.Event {
	return storage.Event{
		Time: d.cfg.Now(), What: what, Account: a, File: d.BlindKey(a).Blind(ref.CID),
		Pinned: ref.Pinned, Expires: ref.Expires,
	}
}

// tell notes what the change does to a reference; it is told when the change is written.
func (c *change) tell(what storage.What, ref storage.Ref) {
	c.told = append(c.told, c.d.eventOf(c.a, what, ref))
}

// again tells what putting a held blob once more changed: damaged bytes are whole again, or it is
// kept for another time.
func (c *change) again(old, ref storage.Ref) error {
	mended, err := c.d.damaged(ref.CID)
	switch {
	case err != nil:
		return err
	case mended:
		c.tell(storage.RefKept, ref)
	case !ref.Expires.Equal(old.Expires):
		c.tell(storage.RefChanged, ref)
	}
	return nil
}

// noteDamage marks c, so that the next Put replaces its files, and tells those who hold it.
func (d *Disk) noteDamage(c cid.CID) error {
	d.damaging.Lock()
	defer d.damaging.Unlock()
	if known, err := d.damaged(c); err != nil || known {
		return err
	}
	if err := d.room(0, indexRoom); err != nil {
		return err // the next reader finds it again
	}
	events, err := d.ofHolders(storage.RefDamaged, c)
	if err != nil {
		return err
	}
	b := d.db.NewBatch()
	if err := d.tell(b, events); err != nil { // the mark is needed more: without it nothing mends
		d.cfg.Log.Error("damage is not told of", "cid", c.String(), "error", err)
		b.Reset()
	}
	return d.commit(b, b.Set(cidKey(keyDamaged, c), nil, nil), pebble.NoSync)
}

// ofHolders returns one event for each account that holds c.
func (d *Disk) ofHolders(what storage.What, c cid.CID) (events []storage.Event, err error) {
	prefix := cidKey(keyHolder, c)
	holders, err := d.page(prefix, above(prefix), maxTold)
	if err != nil {
		return nil, err
	}
	for _, key := range holders {
		a := storage.Account(key[len(prefix):])
		ref, held, err := d.ref(a, c)
		if err != nil {
			return nil, err
		}
		if held {
			events = append(events, d.eventOf(a, what, ref))
		}
	}
	return events, nil
}
