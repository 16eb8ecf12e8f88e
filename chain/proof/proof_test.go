package proof_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/canon"
	"github.com/united-containers/ucn/chain/proof"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/chain/state"
	"github.com/united-containers/ucn/chain/tx"
	chainv1 "github.com/united-containers/ucn/proto/ucn/chain/v1"
)

func key(n int) sig.PrivateKey {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n)+1)
	return sig.FromSeed(seed)
}

func account(n int) sig.AccountID { return sig.AccountOfKey(key(n).Public()) }

const people = 7

func genesis() *block.Genesis {
	g := &block.Genesis{
		Chain: block.Main, Nonce: [32]byte{1}, Time: 1_700_000_000_000,
		Params: block.LocalParams(), RulesVersion: 1, Orderer: block.OrdererSolo,
		Validators: block.ValidatorSet{Validators: []block.Validator{
			{Key: key(0).Public(), Account: account(0), Operator: account(0)},
		}},
	}
	for i := range people {
		g.Allocations = append(g.Allocations,
			block.Allocation{Account: account(i), Amount: 1000 * block.UCN})
	}
	slices.SortFunc(g.Allocations, func(a, b block.Allocation) int {
		return a.Account.Compare(b.Account)
	})
	return g
}

// chain is a block with one transfer of everybody, with all that proofs of it need.
type chain struct {
	genesis  *block.Genesis
	state    *state.State
	source   proof.Source
	txs      [][]byte
	receipts [][]byte
	escrow   tx.EscrowID
}

func newChain(t testing.TB) *chain {
	t.Helper()
	g := genesis()
	s, err := state.New(g)
	if err != nil {
		t.Fatal(err)
	}
	c := &chain{genesis: g, state: s, source: proof.Source{
		Anchor: g.Anchor(), Validators: g.Validators,
	}}
	x, err := s.Begin(state.Context{Head: s.Next(g.Time + 500), Proposer: account(0)})
	if err != nil {
		t.Fatal(err)
	}
	for i := range people {
		c.apply(t, x, i)
	}
	c.seal(x.Finish())
	x.Commit()
	return c
}

func (c *chain) apply(t testing.TB, x *state.Execution, from int) {
	t.Helper()
	operation := tx.Operation(&tx.Transfer{To: account(from + 1), Amount: 77_000_000})
	if from == people-1 {
		operation = &tx.OpenEscrow{Purpose: chainv1.Purpose_PURPOSE_JOB,
			Subject: make([]byte, 32), Amount: 5, Terms: tx.Terms{
				AckKeys: []sig.PublicKey{key(1).Public()}, Expires: c.genesis.Time * 2}}
	}
	if from == people-2 {
		operation = &tx.SetDelegate{Key: key(50).Public(), Bounds: tx.Bounds{Limit: 1,
			Operations: tx.OperationsOf(tx.KindTransfer), Period: 60_000, Until: 1 << 50}}
	}
	signed, err := tx.Sign(tx.Body{Chain: block.Main, Account: account(from), Fee: block.UCN,
		ValidUntil: c.genesis.Time + 60_000, Operations: []tx.Operation{operation}},
		c.source.Anchor, sig.SingleKey(key(from).Public()), true, key(from))
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.state.Prepare(signed)
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := x.Apply(p)
	if err != nil || receipt.Status != chainv1.Status_STATUS_OK {
		t.Fatal(receipt, err)
	}
	if from == people-1 {
		c.escrow = tx.EscrowID(receipt.Outcomes[0].Created)
	}
	entry := block.TransactionEntry(p.ID, signed.Witness())
	c.txs = append(c.txs, signed.Append(nil))
	c.receipts = append(c.receipts, receipt.Append(nil))
	c.source.Transactions = append(c.source.Transactions, block.LeafHash(entry[:]))
	c.source.Receipts = append(c.source.Receipts, block.LeafHash(receipt.Append(nil)))
}

// seal signs the header of the block that x made.
func (c *chain) seal(r state.Result) {
	h := c.genesis.Header(tx.Hash(r.StateRoot))
	h.Height, h.Time, h.Accrual = r.Height, r.Time, r.Accrual
	h.TransactionsRoot = block.RootOfLeaves(c.source.Transactions)
	h.ReceiptsRoot = block.RootOfLeaves(c.source.Receipts)
	h.Proposer = account(0)
	c.source.Header = h
	c.source.Certificate = block.SignHeader(&h, c.source.Anchor, key(0))
}

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	raw, err := canon.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestTransactionProof(t *testing.T) {
	c := newChain(t)
	for i := range c.txs {
		raw := encode(t, c.source.Transaction(i, c.txs[i], c.receipts[i]))
		got, err := proof.VerifyTransaction(raw, proof.TrustOf(c.genesis))
		if err != nil {
			t.Fatalf("transaction %d: %v", i, err)
		}
		if got.Transaction.Account != account(i) || got.Receipt.Transaction != got.ID ||
			got.Header.Height != 1 {
			t.Errorf("transaction %d: %+v", i, got)
		}
	}
}

func (c *chain) accountProof(t testing.TB, id sig.AccountID) []byte {
	t.Helper()
	return encode(t, proof.NewState(&c.source.Header, c.source.Certificate,
		c.state.ProveAccount(id).State))
}

func (c *chain) signersProof(t testing.TB, id sig.AccountID) []byte {
	t.Helper()
	_, signers := c.state.ProveActors(id)
	return encode(t, proof.NewState(&c.source.Header, c.source.Certificate, signers.State))
}

// TestSignersProof: the delegate is proven, nobody's absence too, no field can be changed, and a
// proof of the account is none of its signers.
func TestSignersProof(t *testing.T) {
	c := newChain(t)
	trust := proof.TrustOf(c.genesis)
	for _, n := range []int{people - 2, 0} {
		id := account(n)
		raw := c.signersProof(t, id)
		got, err := proof.VerifySigners(raw, id, trust)
		if err != nil || got.Exists != (n != 0) || len(got.Value.Delegates) != min(n, 1) {
			t.Fatalf("signers of account %d: %+v, %v", n, got, err)
		}
		m := &chainv1.AccountProof{}
		if err := canon.Unmarshal(raw, m); err != nil {
			t.Fatal(err)
		}
		tamper(t, fmt.Sprint("signers ", n), m, m.ProtoReflect(), func(raw []byte) error {
			_, err := proof.VerifySigners(raw, id, trust)
			return err
		})
	}
	id := account(people - 2)
	if _, err := proof.VerifySigners(c.accountProof(t, id), id, trust); !errors.Is(err,
		proof.ErrSubject) {
		t.Errorf("a proof of the account: %v", err)
	}
}

func TestStateProofs(t *testing.T) {
	c := newChain(t)
	trust := proof.TrustOf(c.genesis)
	for i := range people + 20 {
		got, err := proof.VerifyAccount(c.accountProof(t, account(i)), account(i), trust)
		if err != nil {
			t.Fatalf("account %d: %v", i, err)
		}
		want, exists := c.state.Account(account(i))
		if got.Exists != exists || got.Value.Balance != want.Balance {
			t.Errorf("account %d: %+v, want %+v", i, got, want)
		}
	}
	raw := encode(t, proof.NewState(&c.source.Header, c.source.Certificate,
		c.state.ProveEscrow(c.escrow).State))
	escrow, err := proof.VerifyEscrow(raw, c.escrow, trust)
	if err != nil || escrow.Value.Balance != 5 {
		t.Errorf("escrow %+v, %v", escrow, err)
	}
	raw = encode(t, proof.NewState(&c.source.Header, c.source.Certificate,
		c.state.ProveLease(tx.LeaseID{1}).State))
	if lease, err := proof.VerifyLease(raw, tx.LeaseID{1}, trust); err != nil || lease.Exists {
		t.Errorf("lease %+v, %v", lease, err)
	}
	if _, err := proof.VerifyLease(raw, tx.LeaseID{2}, trust); !errors.Is(err, proof.ErrSubject) {
		t.Errorf("proof about another lease: %v", err)
	}
}

// TestProofsOfTheGenesis: before the first block the header follows from the genesis; a header of
// height 0 that does not, or without a genesis to compare, proves nothing.
func TestProofsOfTheGenesis(t *testing.T) {
	g := genesis()
	s, err := state.New(g)
	if err != nil {
		t.Fatal(err)
	}
	header, trust := g.Header(tx.Hash(s.Root())), proof.TrustOf(g)
	m := proof.NewState(&header, block.Certificate{}, s.ProveAccount(account(1)).State)
	got, err := proof.VerifyAccount(encode(t, m), account(1), trust)
	if err != nil || !got.Exists || got.Header != header {
		t.Errorf("%+v, %v", got, err)
	}
	m.Certificate = nil // as in canonical bytes: there is none
	tamper(t, "genesis", m, m.ProtoReflect(), func(raw []byte) error {
		_, err := proof.VerifyAccount(raw, account(1), trust)
		return err
	})
	other := *g
	other.Nonce[0]++
	for name, genesis := range map[string]*block.Genesis{"none": nil, "another": &other} {
		theirs := trust
		theirs.Genesis = genesis
		if _, err := proof.VerifyAccount(encode(t, m), account(1), theirs); !errors.Is(err,
			proof.ErrAnchor) {
			t.Errorf("genesis %s: %v", name, err)
		}
	}
}

// TestTampering changes every field of every proof, each on its own, in every way its type has.
func TestTampering(t *testing.T) {
	c := newChain(t)
	trust := proof.TrustOf(c.genesis)
	verifyTransaction := func(raw []byte) error {
		_, err := proof.VerifyTransaction(raw, trust)
		return err
	}
	for i := range c.txs {
		m := c.source.Transaction(i, c.txs[i], c.receipts[i])
		tamper(t, fmt.Sprint("transaction ", i), m, m.ProtoReflect(), verifyTransaction)
	}
	for _, n := range []int{0, 3, people + 1, people + 2, people + 5} {
		id := account(n)
		m := &chainv1.AccountProof{}
		if err := canon.Unmarshal(c.accountProof(t, id), m); err != nil {
			t.Fatal(err)
		}
		tamper(t, fmt.Sprint("account ", n), m, m.ProtoReflect(), func(raw []byte) error {
			_, err := proof.VerifyAccount(raw, id, trust)
			return err
		})
	}
}

// tamper changes the fields that at holds, within whole, and puts each back.
func tamper(t *testing.T, name string, whole proto.Message, at protoreflect.Message,
	verify func([]byte) error) {
	t.Helper()
	refused := func(path string) {
		t.Helper()
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(whole)
		if err != nil {
			return
		}
		if verify(raw) == nil {
			t.Errorf("%s: accepted with %s changed", name, path)
		}
	}
	fields := at.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		path := name + "." + string(f.Name())
		old := at.Get(f)
		had := at.Has(f)
		switch {
		case f.IsList():
			inner := func(path string, m protoreflect.Message) { tamper(t, path, whole, m, verify) }
			tamperList(path, at.Mutable(f).List(), inner, refused)
			continue
		case f.Message() != nil:
			if had {
				tamper(t, path, whole, at.Mutable(f).Message(), verify)
				at.Clear(f)
				refused(path + " (gone)")
				at.Set(f, old)
			}
			continue
		}
		for _, v := range changed(f, old) {
			at.Set(f, v)
			refused(path)
		}
		at.Clear(f)
		if had {
			refused(path + " (gone)")
			at.Set(f, old)
		}
	}
}

// tamperList changes a list; inner is called for each element that is a message.
func tamperList(
	path string, list protoreflect.List, inner func(string, protoreflect.Message),
	refused func(string),
) {
	if list.Len() == 0 {
		return
	}
	if _, ok := list.Get(0).Interface().(protoreflect.Message); ok {
		for i := range list.Len() {
			inner(fmt.Sprintf("%s[%d]", path, i), list.Get(i).Message())
		}
	} else {
		for i := range list.Len() {
			old := bytes.Clone(list.Get(i).Bytes())
			for _, b := range changedBytes(old) {
				list.Set(i, protoreflect.ValueOfBytes(b))
				refused(fmt.Sprintf("%s[%d]", path, i))
			}
			list.Set(i, protoreflect.ValueOfBytes(old))
		}
	}
	last := list.Get(list.Len() - 1)
	list.Append(last)
	refused(path + " (one more)")
	list.Truncate(list.Len() - 2)
	refused(path + " (one less)")
	list.Append(last)
}

// changed returns values that a liar could put in place of v.
func changed(f protoreflect.FieldDescriptor, v protoreflect.Value) (out []protoreflect.Value) {
	switch f.Kind() {
	case protoreflect.BytesKind:
		for _, b := range changedBytes(v.Bytes()) {
			out = append(out, protoreflect.ValueOfBytes(b))
		}
	case protoreflect.StringKind:
		out = append(out, protoreflect.ValueOfString(v.String()+"x"))
	case protoreflect.Uint64Kind:
		out = append(out, protoreflect.ValueOfUint64(v.Uint()+1),
			protoreflect.ValueOfUint64(v.Uint()-1), protoreflect.ValueOfUint64(1<<63))
	case protoreflect.Uint32Kind:
		out = append(out, protoreflect.ValueOfUint32(uint32(v.Uint())+1),
			protoreflect.ValueOfUint32(1<<31))
	default:
		panic("no way to change a " + f.Kind().String())
	}
	return out
}

func changedBytes(b []byte) (out [][]byte) {
	for _, i := range []int{0, len(b) / 2, len(b) - 1} {
		if i >= 0 && i < len(b) {
			flipped := bytes.Clone(b)
			flipped[i] ^= 0x10
			out = append(out, flipped)
		}
	}
	if len(b) > 0 {
		out = append(out, b[:len(b)-1])
	}
	return append(out, append(bytes.Clone(b), 1), make([]byte, 32))
}

// TestOthersProof: a proof of a chain of one's own, right in itself, is not one of the trusted
// chain.
func TestOthersProof(t *testing.T) {
	c := newChain(t)
	raw := encode(t, c.source.Transaction(0, c.txs[0], c.receipts[0]))
	trust := proof.TrustOf(c.genesis)
	for name, x := range map[string]struct {
		change func(*proof.Trust)
		want   error
	}{
		"anchor":     {func(t *proof.Trust) { t.Anchor[0]++ }, proof.ErrAnchor},
		"validators": {func(t *proof.Trust) { t.Validators = foreign() }, proof.ErrValidators},
		"quorum":     {func(t *proof.Trust) { t.Need = 2 }, block.ErrCertificateFew},
	} {
		theirs := trust
		x.change(&theirs)
		if _, err := proof.VerifyTransaction(raw, theirs); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
	theirs := trust
	theirs.Validators = foreign()
	_, err := proof.VerifyAccount(c.accountProof(t, account(1)), account(1), theirs)
	if !errors.Is(err, block.ErrSigners) {
		t.Errorf("account by other validators: %v", err)
	}
}

func foreign() block.ValidatorSet {
	return block.ValidatorSet{Validators: []block.Validator{
		{Key: key(9).Public(), Account: account(9), Operator: account(9)},
	}}
}

// TestMixedProofs joins parts of good proofs.
func TestMixedProofs(t *testing.T) {
	c := newChain(t)
	trust := proof.TrustOf(c.genesis)
	one := c.source.Transaction(1, c.txs[1], c.receipts[1])
	two := c.source.Transaction(2, c.txs[2], c.receipts[2])
	one.Receipt, one.ReceiptProof = two.Receipt, two.ReceiptProof
	if _, err := proof.VerifyTransaction(encode(t, one), trust); !errors.Is(err, proof.ErrSubject) {
		t.Errorf("another's receipt: %v", err)
	}
	raw := c.accountProof(t, account(2))
	if _, err := proof.VerifyAccount(raw, account(1), trust); !errors.Is(err, proof.ErrSubject) {
		t.Errorf("another's account: %v", err)
	}
	if _, err := proof.VerifyAccount(make([]byte, proof.MaxSize+1), account(1), trust); !errors.Is(
		err, proof.ErrMalformed) {
		t.Errorf("too long: %v", err)
	}
}

// FuzzVerifyTransaction: no bytes but the good ones verify.
func FuzzVerifyTransaction(f *testing.F) {
	c := newChain(f)
	trust := proof.TrustOf(c.genesis)
	good := map[tx.ID]tx.Receipt{}
	for i := range c.txs {
		raw := encode(f, c.source.Transaction(i, c.txs[i], c.receipts[i]))
		proven, err := proof.VerifyTransaction(raw, trust)
		if err != nil {
			f.Fatal(err)
		}
		good[proven.ID] = proven.Receipt
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := proof.VerifyTransaction(raw, trust)
		if err != nil {
			return
		}
		want, ok := good[got.ID]
		if !ok || !bytes.Equal(want.Append(nil), got.Receipt.Append(nil)) {
			t.Fatalf("proved %v with %+v", got.ID, got.Receipt)
		}
	})
}
