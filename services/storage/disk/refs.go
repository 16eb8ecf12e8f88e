package disk

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/united-containers/ucn/kit/cid"
	"github.com/united-containers/ucn/services/storage"
)

// More keys of the index: how directories hold what they name, and what may expire.
const (
	keyLink   = 'l' // account, cid, directory -> nothing
	keyName   = 'm' // account, directory, cid -> nothing: the same, the other way round
	keyExpiry = 'x' // milliseconds, account, cid -> nothing; not of pinned or linked references

	formatPlain  = 1 // without counts per kind
	formatSilent = 2 // without events
	countRecord  = 16
	usageCounts  = 2 + int(cid.Directory) // all, pinned, each kind
	cidSize      = 4 + cid.SumSize
)

// change is one synced batch on one account's references. Whoever makes one holds the account's
// lock until it is committed.
type change struct {
	d     *Disk
	a     storage.Account
	usage storage.Usage
	batch *pebble.Batch
	told  []storage.Event
	job   bool             // a host of a job makes it
	paid  *prepaid         // events that are counted already
	gone  map[cid.CID]bool // references this change ends
	err   error
}

func (d *Disk) change(a storage.Account) (*change, error) {
	usage, err := d.usage(a)
	if err != nil {
		return nil, err
	}
	return &change{d: d, a: a, usage: usage, batch: d.db.NewBatch(), gone: map[cid.CID]bool{}}, nil
}

func (c *change) set(key, value []byte) { c.err = errors.Join(c.err, c.batch.Set(key, value, nil)) }
func (c *change) drop(key []byte)       { c.err = errors.Join(c.err, c.batch.Delete(key, nil)) }

func (c *change) commit() error {
	c.set(usageKey(c.a), encodeUsage(c.usage))
	if c.err == nil && c.d.outbox != nil {
		return c.commitTold()
	}
	return c.d.commit(c.batch, c.err, pebble.Sync)
}

// commitTold counts the events, and gives them back when the change does not happen.
func (c *change) commitTold() error {
	key, made := shareKey{c.a, c.job}, counted(c.told)
	more := c.paid.use(made)
	err := c.d.shares.take(c.d.cfg.Now(), key, more)
	if err != nil {
		more = 0
	} else {
		err = c.d.tell(c.batch, c.told)
	}
	if err = c.d.commit(c.batch, err, pebble.Sync); err != nil {
		c.d.shares.give(key, more)
	}
	return err
}

// add writes a reference that is new.
func (c *change) add(ref storage.Ref, linked bool) {
	record, err := json.Marshal(recordOf(ref))
	c.err = errors.Join(c.err, err)
	c.set(refKey(c.a, ref.CID), record)
	c.usage.Add(ref, 1)
	if !linked && mayExpire(ref) {
		c.set(expiryKey(ref.Expires, c.a, ref.CID), nil)
	}
}

// remove ends a reference.
func (c *change) remove(ref storage.Ref) {
	c.drop(refKey(c.a, ref.CID))
	c.usage.Add(ref, -1)
	if !ref.Expires.IsZero() {
		c.drop(expiryKey(ref.Expires, c.a, ref.CID))
	}
}

func (c *change) replace(old, ref storage.Ref, linked bool) {
	c.remove(old)
	c.add(ref, linked)
}

func mayExpire(ref storage.Ref) bool { return !ref.Expires.IsZero() && !ref.Pinned }

// commit records, in one synced batch, that the account holds what ref says; old is what it held
// before. It ends the intent and the damage of the blob.
func (u *upload) commit(ref storage.Ref, old *storage.Ref) error {
	d, p := u.d, u.p
	c, err := d.change(p.Account)
	if err != nil {
		return err
	}
	c.job, c.paid = p.ByHost(), u.paid
	linked, err := d.linkedBy(p.Account, ref.CID, nil)
	if err != nil {
		return errors.Join(err, c.batch.Close())
	}
	if old != nil {
		c.replace(*old, ref, !linked.IsZero())
		err = c.again(*old, ref)
	} else {
		c.add(ref, false)
		c.tell(storage.RefKept, ref)
		err = c.link(ref.CID, p.Tree.Names)
	}
	if err != nil {
		return errors.Join(err, c.batch.Close())
	}
	c.set(append(cidKey(keyHolder, ref.CID), p.Account[:]...), nil)
	c.set(cidKey(keyBlob, ref.CID), encodeBlob(u.blob))
	c.drop(cidKey(keyIntent, ref.CID))
	c.drop(cidKey(keyDamaged, ref.CID))
	return c.commit()
}

// link makes directory hold names, all of which the account must hold.
func (c *change) link(directory cid.CID, names []cid.CID) error {
	for _, name := range names {
		ref, held, err := c.d.ref(c.a, name)
		if err != nil {
			return err
		}
		if !held {
			return storage.Incomplete(name, "which the account does not hold")
		}
		c.set(linkKey(keyLink, c.a, name, directory), nil)
		c.set(linkKey(keyName, c.a, directory, name), nil)
		if !ref.Expires.IsZero() {
			c.drop(expiryKey(ref.Expires, c.a, name))
		}
	}
	return nil
}

// end ends a reference and lets go of what it holds.
func (c *change) end(ref storage.Ref) error {
	c.gone[ref.CID] = true
	c.remove(ref)
	c.drop(append(cidKey(keyHolder, ref.CID), c.a[:]...))
	return c.unlink(ref.CID)
}

// unlink lets go of what directory holds; what nothing holds any more may expire again.
func (c *change) unlink(directory cid.CID) error {
	prefix := linkKey(keyName, c.a, directory, cid.CID{})
	return c.d.each(prefix, func(key, _ []byte) error {
		name, err := cid.FromBytes(key[len(prefix):])
		if err != nil {
			return fmt.Errorf("storage index key %x: %w", key, err)
		}
		c.drop(linkKey(keyLink, c.a, name, directory))
		c.drop(key)
		other, err := c.d.linkedBy(c.a, name, c.gone)
		if err != nil || !other.IsZero() {
			return err
		}
		ref, held, err := c.d.ref(c.a, name)
		if held && mayExpire(ref) {
			c.set(expiryKey(ref.Expires, c.a, name), nil)
		}
		return err
	})
}

var errStop = errors.New("stop") // ends each early

// linkedBy returns a directory of the account, other than those gone, that names c; zero for none.
func (d *Disk) linkedBy(a storage.Account, c cid.CID, gone map[cid.CID]bool,
) (by cid.CID, err error) {
	prefix := linkKey(keyLink, a, c, cid.CID{})
	err = d.each(prefix, func(key, _ []byte) error {
		directory, err := cid.FromBytes(key[len(prefix):])
		if err != nil {
			return fmt.Errorf("storage index key %x: %w", key, err)
		}
		if gone[directory] {
			return nil
		}
		by = directory
		return errStop
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return by, err
}

// each calls do with copies of all keys and values under prefix.
func (d *Disk) each(prefix []byte, do func(key, value []byte) error) error {
	return d.eachBetween(prefix, above(prefix), do)
}

func (d *Disk) eachBetween(from, end []byte, do func(key, value []byte) error) (err error) {
	it, err := d.db.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: end})
	if err != nil {
		return fmt.Errorf("read storage index: %w", err)
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		if err := do(bytes.Clone(it.Key()), bytes.Clone(it.Value())); err != nil {
			return err
		}
	}
	return it.Error()
}

// release ends a's reference to c in one synced batch, and reports whether nobody else holds c; it
// is then under an intent.
func (d *Disk) release(a storage.Account, c cid.CID, how ending) (orphaned bool, err error) {
	lock := d.lockAccount(a)
	lock.Lock()
	defer lock.Unlock()
	ref, held, err := d.ref(a, c)
	if err != nil {
		return false, err
	}
	if !held {
		return false, storage.NotFound(c)
	}
	if err := how.allowed(ref); err != nil {
		return false, err
	}
	by, err := d.linkedBy(a, c, nil)
	if err != nil {
		return false, err
	}
	if !by.IsZero() {
		return false, storage.InDirectory(c, by)
	}
	other, err := d.anyOther(c, &a)
	if err != nil {
		return false, err
	}
	if err := d.room(0, indexRoom); err != nil {
		return false, err
	}
	if err := d.step(stepRelease); err != nil {
		return false, err
	}
	return !other, d.end(a, ref, other, how.what)
}

func (d *Disk) end(a storage.Account, ref storage.Ref, other bool, what storage.What) error {
	c, err := d.change(a)
	if err != nil {
		return err
	}
	c.tell(what, ref)
	if err := c.end(ref); err != nil {
		return errors.Join(err, c.batch.Close())
	}
	if !other {
		c.set(cidKey(keyIntent, ref.CID), nil)
	}
	return c.commit()
}

func (d *Disk) usage(a storage.Account) (storage.Usage, error) {
	value, found, err := d.get(usageKey(a))
	if err != nil || !found {
		return storage.Usage{}, err
	}
	return decodeUsage(value)
}

func decodeUsage(value []byte) (u storage.Usage, err error) {
	if len(value) != countRecord*usageCounts {
		return u, fmt.Errorf("a usage record has %d bytes", len(value))
	}
	next := func() (c storage.Count) {
		c = storage.Count{Bytes: int64(binary.BigEndian.Uint64(value)),
			Blobs: int64(binary.BigEndian.Uint64(value[8:]))}
		value = value[countRecord:]
		return c
	}
	all := next()
	u.Bytes, u.Blobs, u.Pinned = all.Bytes, all.Blobs, next()
	for kind := range u.Kinds[1:] {
		u.Kinds[1+kind] = next()
	}
	return u, nil
}

func encodeUsage(u storage.Usage) (value []byte) {
	all := storage.Count{Bytes: u.Bytes, Blobs: u.Blobs}
	for _, c := range append([]storage.Count{all, u.Pinned}, u.Kinds[1:]...) {
		value = binary.BigEndian.AppendUint64(value, uint64(c.Bytes))
		value = binary.BigEndian.AppendUint64(value, uint64(c.Blobs))
	}
	return value
}

// upgrade makes an index of this format out of an older one or an empty one: it draws the key for
// names in events and, if the index was written before there were counts per kind, counts every
// account's references again.
func (d *Disk) upgrade(recount bool) error {
	b := d.db.NewBatch()
	var err error
	if recount {
		err = d.recount(b)
	}
	var key cid.BlindKey
	_, none := rand.Read(key[:])
	err = errors.Join(err, none, b.Set([]byte{keyBlind}, key[:], nil),
		b.Set([]byte{keyVersion}, []byte{format}, nil))
	return d.commit(b, err, pebble.Sync)
}

func (d *Disk) recount(b *pebble.Batch) error {
	counts := map[storage.Account]*storage.Usage{}
	err := d.each([]byte{keyRef}, func(key, value []byte) error {
		c, err := cid.FromBytes(key[1+accountSize:])
		if err != nil {
			return fmt.Errorf("storage index key %x: %w", key, err)
		}
		ref, err := decodeRef(c, value)
		if err != nil {
			return err
		}
		a := storage.Account(key[1 : 1+accountSize])
		if counts[a] == nil {
			counts[a] = &storage.Usage{}
		}
		counts[a].Add(ref, 1)
		return nil
	})
	err = errors.Join(err, b.DeleteRange([]byte{keyUsage}, []byte{keyUsage + 1}, nil))
	for a, usage := range counts {
		err = errors.Join(err, b.Set(usageKey(a), encodeUsage(*usage), nil))
	}
	return err
}

func recordOf(ref storage.Ref) refRecord {
	return refRecord{Size: ref.Size, Name: ref.Name, Job: ref.Job, Created: ref.Created.UnixMilli(),
		Pinned: ref.Pinned, Expires: millis(ref.Expires), Total: ref.Total, Height: ref.Height}
}

func decodeRef(c cid.CID, value []byte) (storage.Ref, error) {
	var r refRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return storage.Ref{}, fmt.Errorf("decode reference to %s: %w", c, err)
	}
	return storage.Ref{CID: c, Size: r.Size, Name: r.Name, Job: r.Job,
		Created: time.UnixMilli(r.Created), Pinned: r.Pinned, Expires: timeOf(r.Expires),
		Total: r.Total, Height: r.Height}, nil
}

// millis and timeOf keep the zero time zero.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func usageKey(a storage.Account) []byte { return append([]byte{keyUsage}, a[:]...) }

func linkKey(kind byte, a storage.Account, first, second cid.CID) []byte {
	key := append(append(make([]byte, 0, 1+accountSize+2*cidSize), kind), a[:]...)
	return append(append(key, first.Bytes()...), second.Bytes()...)
}

func expiryKey(at time.Time, a storage.Account, c cid.CID) []byte {
	key := append(make([]byte, 0, 9+accountSize+cidSize), keyExpiry)
	key = binary.BigEndian.AppendUint64(key, uint64(at.UnixMilli()))
	return append(append(key, a[:]...), c.Bytes()...)
}
