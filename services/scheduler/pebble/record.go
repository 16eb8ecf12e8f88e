package pebble

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/united-containers/ucn/chain/price"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
)

// A record is a version byte, then numbered fields in the wire form of protocol buffers. Zero
// values are left out and fields that are not known are passed over, so that fields can be added
// and older records stay readable. decode(encode(j)) is j but for the signed revision, which is
// kept beside.

// version is the first byte of every record.
const version = 1

// errVersion: a record is of a version that this program does not know.
var errVersion = errors.New("record of an unknown version")

// appendJob appends the record of a job without its revision.
func appendJob(out []byte, j *scheduler.Job) []byte {
	return writeFields(append(out, version), jobFields(j))
}

// decode reads a record; the job's revision is nil.
func decode(raw []byte) (*scheduler.Job, error) {
	if len(raw) == 0 || raw[0] != version {
		return nil, errVersion
	}
	j := &scheduler.Job{}
	if err := readFields(raw[1:], jobFields(j)); err != nil {
		return nil, fmt.Errorf("decode a job: %w", err)
	}
	if len(j.Runs) == 0 {
		return nil, fmt.Errorf("decode a job: %w: no run", errField)
	}
	return j, nil
}

// The numbers below are never used for anything else. A new field takes the next one.

func jobFields(j *scheduler.Job) []field {
	return []field{
		fixed(1, j.ID[:]), fixed(2, j.Owner[:]), fixed(3, j.Escrow[:]),
		whole(4, specFields(&j.Spec)), text(5, &j.StorageToken), unsigned(6, &j.Delivery),
		moment(7, &j.Submitted), text(8, &j.Traceparent),
		text(10, &j.CancelReason), moment(11, &j.Cancelled), moment(12, &j.Expires),
		list(13, &j.Runs, runFields), unsigned(14, &j.Array.Next),
		unsigned(15, &j.Array.Completed), unsigned(16, &j.Array.Failed), truth(17, &j.Array.Closed),
		blob(18, &j.Update), moment(19, &j.Updated), unsigned(20, &j.FirstTotal),
	}
}

func specFields(s *scheduler.Spec) []field {
	return []field{
		text(1, &s.Name), text(2, &s.Chain), text(3, &s.Image), texts(4, &s.Files),
		whole(5, resourceFields(&s.Resources)), texts(6, &s.Platforms),
		list(7, &s.Allow, accountFields), list(8, &s.Deny, accountFields),
		list(9, &s.Labels, labelFields), maybe(10, &s.Near, positionFields),
		maybe(11, &s.Cap, priceFields), truth(12, &s.Strict), unsigned(13, &s.MaxTotal),
		unsigned(14, &s.MaxRate), unsigned(15, &s.Trust), signed(16, &s.RunTime),
		unsigned(17, &s.Retries), signed(18, &s.Backoff), unsigned(19, &s.Lanes),
		truth(20, &s.Always), unsigned(21, &s.Restart), unsigned(22, &s.Tasks),
		signed(23, &s.LostAfter), unsigned(24, &s.Keep), unsigned(25, &s.Holdback),
		signed(26, &s.Notice),
	}
}

func runFields(r *scheduler.Run) []field {
	return []field{
		fixed(1, r.ID[:]), unsigned(2, &r.State), unsigned(3, &r.End), text(4, &r.Reason),
		moment(5, &r.Created), moment(6, &r.Ended), moment(7, &r.NotBefore),
		unsigned(8, &r.Retries), signed(9, &r.Backoff), unsigned(10, &r.Failures),
		list(11, &r.Attempts, attemptFields), unsigned(12, &r.Slot), unsigned(13, &r.Epoch),
		unsigned(14, &r.Task), truth(15, &r.Counted), unsigned(16, &r.Tries),
		unsigned(17, &r.Streak), unsigned(18, &r.HostFailures), truth(19, &r.Surplus),
		fixed(20, r.Lease[:]), truth(21, &r.Ran),
	}
}

func attemptFields(a *scheduler.Attempt) []field {
	return []field{
		fixed(1, a.ID[:]), unsigned(2, &a.State), unsigned(3, &a.End), text(4, &a.Reason),
		whole(5, hostFields(&a.Host)), whole(6, leaseFields(&a.Lease)), truth(7, &a.Placed),
		truth(8, &a.Delivered), whole(9, priceFields(&a.Prices)), moment(10, &a.Created),
		moment(11, &a.Ended), truth(12, &a.Told), truth(13, &a.Began), blob(14, &a.Status),
		moment(15, &a.Reported), moment(16, &a.Heard), truth(17, &a.Silent),
		moment(18, &a.EvictAt), truth(19, &a.Moving), truth(20, &a.Kept),
		whole(21, holdFields(&a.Hold)), fixed(22, a.Continues[:]), unsigned(23, &a.Origin),
	}
}

func holdFields(h *scheduler.Hold) []field {
	return []field{
		moment(1, &h.Until), moment(2, &h.Back), moment(3, &h.Quiet), moment(4, &h.AskFrom),
		unsigned(5, &h.Asks), unsigned(6, &h.Returns), truth(7, &h.Dismiss),
	}
}

func hostFields(h *scheduler.Host) []field {
	return []field{
		fixed(1, h.Executor[:]), fixed(2, h.Operator[:]), text(3, &h.Name), text(4, &h.Subject),
		blob(5, &h.Certificate),
	}
}

func leaseFields(l *scheduler.SignedLease) []field {
	return []field{fixed(1, l.ID[:]), canonicalLease(2, &l.Lease), fixed(3, l.Signature[:])}
}

// canonicalLease is a field of a lease in the form that is signed.
func canonicalLease(number protowire.Number, l *tx.Lease) field {
	return field{
		number: number, kind: protowire.BytesType,
		each: func(put func([]byte)) {
			if raw := l.Append(nil); len(raw) > 0 {
				put(raw)
			}
		},
		take: func(raw []byte) (err error) {
			*l, err = tx.DecodeLease(raw)
			return err
		},
	}
}

func resourceFields(r *price.Resources) []field {
	return []field{
		unsigned(1, &r.CPUMilli), unsigned(2, &r.Memory), unsigned(3, &r.Disk),
		unsigned(4, &r.Network),
	}
}

func priceFields(p *price.Prices) []field {
	return []field{
		unsigned(1, &p.Model), unsigned(2, &p.WallHour), unsigned(3, &p.CoreHour),
		unsigned(4, &p.MemoryGiBHour), unsigned(5, &p.GiBIn), unsigned(6, &p.GiBOut),
		unsigned(7, &p.DiskGiBHour), unsigned(8, &p.Run), unsigned(9, &p.CFPSHour),
	}
}

func accountFields(a *sig.AccountID) []field { return []field{fixed(1, a[:])} }

func labelFields(l *scheduler.Label) []field {
	return []field{text(1, &l.Name), text(2, &l.Value)}
}

func positionFields(p *scheduler.Position) []field {
	return []field{signed(1, &p.LatitudeMicro), signed(2, &p.LongitudeMicro)}
}
