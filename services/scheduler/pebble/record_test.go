package pebble

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/tx"
	"github.com/united-containers/ucn/services/scheduler"
	"github.com/united-containers/ucn/services/scheduler/schedulertest"
)

// fill gives every field of a value something, so that one that is forgotten shows.
func fill(v reflect.Value, r *rand.Rand) {
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(250_000_000_000), r.Int64N(1_000_000_000))))
		return
	case tx.Lease:
		v.Set(reflect.ValueOf(lease(r)))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), r)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
		fallthrough
	case reflect.Array:
		for i := range v.Len() {
			fill(v.Index(i), r)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), r)
	case reflect.String:
		v.SetString(string([]byte{byte('a' + r.IntN(26)), byte('a' + r.IntN(26))}))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(-1 - int64(r.Int32()))
	case reflect.Uint8:
		v.SetUint(1 + r.Uint64N(255))
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(1 + uint64(r.Uint32()))
	default:
		panic("a field of a kind that records do not know: " + v.Type().String())
	}
}

func lease(r *rand.Rand) tx.Lease {
	return tx.Lease{
		Escrow: tx.EscrowID{1}, Subject: []byte{1, 2}, Slot: 3, Epoch: 7, Payee: sig.AccountID{4},
		AgentKey: sig.FromSeed([32]byte{5}).Public(), Rate: 6, Budget: 7,
		AckKeys:   []sig.PublicKey{sig.FromSeed([32]byte{6}).Public()},
		PriceHash: tx.Hash{8}, OfferHash: tx.Hash{9}, PlaceBy: 10, Until: tx.Millis(r.Uint32()),
	}
}

// TestEveryFieldIsKept: a field that is added to a job and not to its record is found here.
func TestEveryFieldIsKept(t *testing.T) {
	for seed := range uint64(20) {
		j := &scheduler.Job{}
		fill(reflect.ValueOf(j).Elem(), rand.New(rand.NewPCG(seed, 1)))
		got, err := decode(appendJob(nil, j))
		if err != nil {
			t.Fatal(err)
		}
		j.Revision = nil
		if diff := cmp.Diff(j, got); diff != "" {
			t.Fatalf("seed %d, what came back differs:\n%s", seed, diff)
		}
	}
}

func TestOrdinaryJobIsKept(t *testing.T) {
	j := schedulertest.NewJob(1, 1)
	got, err := decode(appendJob(nil, j))
	if err != nil {
		t.Fatal(err)
	}
	j.Revision = nil
	if diff := cmp.Diff(j, got); diff != "" {
		t.Error(diff)
	}
}

func TestRefusals(t *testing.T) {
	good := appendJob(nil, schedulertest.NewJob(1, 1))
	for name, raw := range map[string][]byte{
		"empty": nil, "another version": {9, 1}, "no run": {1}, "cut": good[:len(good)-1],
		"an id of another size": {1, 1<<3 | 2, 1, 7}, "a number for a text": {1, 5 << 3, 1},
	} {
		if _, err := decode(raw); err == nil {
			t.Errorf("%s: decoded", name)
		} else if name == "another version" && !errors.Is(err, errVersion) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnknownFieldsArePassedOver(t *testing.T) {
	j := schedulertest.NewJob(1, 1)
	raw := append(appendJob(nil, j), 0x98, 0x06, 5, 0x9a, 0x06, 2, 'h', 'i') // fields 99
	if got, err := decode(raw); err != nil || got.ID != j.ID {
		t.Errorf("decoded %v, %v", got, err)
	}
}

func FuzzRecord(f *testing.F) {
	j := &scheduler.Job{}
	fill(reflect.ValueOf(j).Elem(), rand.New(rand.NewPCG(1, 1)))
	f.Add(appendJob(nil, j))
	f.Add(appendJob(nil, schedulertest.NewJob(1, 1)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		j, err := decode(raw)
		if err != nil {
			return
		}
		again, err := decode(appendJob(nil, j))
		if err != nil {
			t.Fatalf("what was encoded does not decode: %v", err)
		}
		if diff := cmp.Diff(j, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
