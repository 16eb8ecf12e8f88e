package disk

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
)

// maxMany is how many bytes a write that ends several references may have before the last of them:
// what a directory names is let go of, too.
const maxMany = 512 << 10

// RemoveMany implements storage.Blobs.
func (d *Disk) RemoveMany(ctx context.Context, a storage.Account, cs []cid.CID) (
	became []error, err error,
) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.calls.Done()
	if err := errors.Join(ctx.Err(), storage.CheckMany(cs)); err != nil {
		return nil, err
	}
	m, err := d.endMany(a, cs)
	if err != nil {
		return nil, err
	}
	for _, c := range m.ended {
		if _, _, err := d.settleLocked(c); err != nil {
			d.cfg.Log.Error("bytes of a removed blob not freed yet", "cid", c.String(), "error", err)
		}
	}
	return m.became, nil
}

// many is a change that ends several references.
type many struct {
	*change
	became []error
	ended  []cid.CID
	files  []cid.Blinded
	last   storage.Ref
}

// endMany ends the first of cs in one synced batch. No blob's lock is held, which would be too many
// at once; so each blob gets an intent, whoever else may hold it, and is settled under its lock.
func (d *Disk) endMany(a storage.Account, cs []cid.CID) (*many, error) {
	lock := d.lockAccount(a)
	lock.Lock()
	defer lock.Unlock()
	if err := d.room(0, indexRoom+maxMany); err != nil {
		return nil, err
	}
	c, err := d.change(a)
	if err != nil {
		return nil, err
	}
	m := &many{change: c}
	for _, one := range cs {
		if len(m.became) > 0 && c.batch.Len() >= maxMany {
			break
		}
		stays, err := m.one(one)
		if err != nil {
			return nil, errors.Join(err, c.batch.Close())
		}
		m.became = append(m.became, stays)
	}
	if len(m.ended) == 0 {
		return m, c.batch.Close()
	}
	m.tellAll()
	if err := d.step(stepRelease); err != nil {
		return nil, errors.Join(err, c.batch.Close())
	}
	return m, c.commit()
}

// one ends a reference, or says why it stays.
func (m *many) one(c cid.CID) (stays, err error) {
	ref, held, err := m.d.ref(m.a, c)
	if err != nil {
		return nil, err
	}
	if !held || m.gone[c] {
		return storage.NotFound(c), nil
	}
	if ref.Pinned {
		return storage.Pinned(c), nil
	}
	by, err := m.d.linkedBy(m.a, c, m.gone)
	if err != nil {
		return nil, err
	}
	if !by.IsZero() {
		return storage.InDirectory(c, by), nil
	}
	m.ended, m.last = append(m.ended, c), ref
	m.files = append(m.files, m.d.BlindKey(m.a).Blind(c))
	m.set(cidKey(keyIntent, c), nil)
	return nil, m.end(ref)
}

// tellAll tells the end of one reference as that of any, of several as one event.
func (m *many) tellAll() {
	if len(m.files) == 1 {
		m.tell(storage.RefRemoved, m.last)
		return
	}
	slices.SortFunc(m.files, func(x, y cid.Blinded) int { return bytes.Compare(x[:], y[:]) })
	m.told = append(m.told, storage.Event{
		Time: m.d.cfg.Now(), What: storage.RefRemoved, Account: m.a, Files: m.files,
	})
}
