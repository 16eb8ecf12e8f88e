package trie_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	"pgregory.net/rapid"

	"github.com/united-containers/ucn/chain/trie"
)

// naiveRoot is the definition of the root, written from the package comment alone.
func naiveRoot(leaves map[trie.Key]string, depth int) [32]byte {
	if len(leaves) == 0 {
		return [32]byte{}
	}
	if len(leaves) == 1 {
		for k, v := range leaves {
			value := sha256.Sum256([]byte(v))
			return sha256.Sum256(append(append([]byte{0}, k[:]...), value[:]...))
		}
	}
	halves := [2]map[trie.Key]string{{}, {}}
	for k, v := range leaves {
		halves[k[depth/8]>>(7-depth%8)&1][k] = v
	}
	l, r := naiveRoot(halves[0], depth+1), naiveRoot(halves[1], depth+1)
	return sha256.Sum256(append(append([]byte{1}, l[:]...), r[:]...))
}

// genKey draws keys that share long prefixes often.
func genKey(t *rapid.T) trie.Key {
	var k trie.Key
	switch rapid.IntRange(0, 3).Draw(t, "shape") {
	case 0:
		k[31] = rapid.Byte().Draw(t, "last")
	case 1:
		k[0] = rapid.Byte().Draw(t, "first")
	case 2:
		k[0], k[17] = rapid.Byte().Draw(t, "first"), rapid.Byte().Draw(t, "middle")
	default:
		k = sha256.Sum256([]byte{rapid.Byte().Draw(t, "seed")})
	}
	return k
}

func genUpdates(t *rapid.T) []trie.Update {
	values := rapid.MapOfN(rapid.Custom(genKey), rapid.IntRange(0, 5), 0, 24).Draw(t, "updates")
	updates := make([]trie.Update, 0, len(values))
	for k, v := range values {
		u := trie.Update{Key: k}
		if v > 0 {
			u.Value = []byte{byte(v)}
		}
		updates = append(updates, u)
	}
	return updates
}

func applyToModel(model map[trie.Key]string, updates []trie.Update) {
	for _, u := range updates {
		if u.Value == nil {
			delete(model, u.Key)
		} else {
			model[u.Key] = string(u.Value)
		}
	}
}

func clone(m map[trie.Key]string) map[trie.Key]string {
	c := make(map[trie.Key]string, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func TestTreeAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tree, model := trie.New(), map[trie.Key]string{}
		for range rapid.IntRange(1, 12).Draw(t, "batches") {
			batch, err := tree.Begin()
			if err != nil {
				t.Fatal(err)
			}
			next := clone(model)
			for range rapid.IntRange(1, 4).Draw(t, "updates in batch") {
				updates := genUpdates(t)
				if err := batch.Update(updates); err != nil {
					t.Fatal(err)
				}
				applyToModel(next, updates)
				checkRoot(t, "speculative", batch.Root(), batch.Len(), next)
				checkRoot(t, "committed beside it", tree.Root(), tree.Len(), model)
			}
			if rapid.Bool().Draw(t, "commit") {
				batch.Commit()
				model = next
			} else {
				batch.Drop()
			}
			checkRoot(t, "after the batch", tree.Root(), tree.Len(), model)
		}
		checkProofs(t, tree, model)
	})
}

func checkRoot(t *rapid.T, what string, root trie.Hash, count int, model map[trie.Key]string) {
	t.Helper()
	if want := trie.Hash(naiveRoot(model, 0)); root != want {
		t.Fatalf("%s: root %v, want %v", what, root, want)
	}
	if count != len(model) {
		t.Fatalf("%s: %d leaves, want %d", what, count, len(model))
	}
}

func checkProofs(t *rapid.T, tree *trie.Tree, model map[trie.Key]string) {
	t.Helper()
	keys := []trie.Key{genKey(t), genKey(t), genKey(t)}
	for k := range model {
		keys = append(keys, k)
	}
	for _, key := range keys {
		value, want := model[key]
		proof, found := tree.Prove(key)
		if found != want {
			t.Fatalf("Prove(%x): found %v, want %v", key, found, want)
		}
		if hash, ok := tree.Get(key); ok != want || want && hash != sha256.Sum256([]byte(value)) {
			t.Fatalf("Get(%x) = %v, %v; want %v", key, hash, ok, want)
		}
		proof.Value = []byte(value)
		if included, err := trie.Verify(tree.Root(), proof); err != nil || included != want {
			t.Fatalf("Verify(%x) = %v, %v; want %v", key, included, err, want)
		}
	}
}

func numbered(i int) (k trie.Key) {
	return sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
}

func numberedUpdates(from, to int, value string) []trie.Update {
	updates := make([]trie.Update, 0, to-from)
	for i := from; i < to; i++ {
		updates = append(updates, trie.Update{Key: numbered(i), Value: []byte(value)})
	}
	return updates
}

func mustUpdate(t testing.TB, tree *trie.Tree, updates []trie.Update) {
	t.Helper()
	batch, err := tree.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if err := batch.Update(updates); err != nil {
		t.Fatal(err)
	}
	batch.Commit()
}

// TestParallelSubtrees runs batches large enough to fork, on one and on four processors.
func TestParallelSubtrees(t *testing.T) {
	roots := map[int]trie.Hash{}
	for _, procs := range []int{1, 4} {
		old := runtime.GOMAXPROCS(procs)
		tree, model := trie.New(), map[trie.Key]string{}
		for round := range 5 {
			updates := numberedUpdates(round*1000, round*1000+6000, string(rune('a'+round)))
			for i := 0; i < len(updates); i += 7 {
				updates[i].Value = nil
			}
			mustUpdate(t, tree, updates)
			applyToModel(model, updates)
		}
		runtime.GOMAXPROCS(old)
		if want := trie.Hash(naiveRoot(model, 0)); tree.Root() != want {
			t.Errorf("%d processors: root %v, want %v", procs, tree.Root(), want)
		}
		roots[procs] = tree.Root()
	}
	if roots[1] != roots[4] {
		t.Errorf("root depends on processors: %v and %v", roots[1], roots[4])
	}
}

// TestReadBesideBatch is for the race detector: proofs of the committed root during an update.
func TestReadBesideBatch(t *testing.T) {
	tree := trie.New()
	mustUpdate(t, tree, numberedUpdates(0, 2000, "old"))
	root := tree.Root()
	batch, err := tree.Begin()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		for i := range 2000 {
			proof, _ := tree.Prove(numbered(i))
			proof.Value = []byte("old")
			if _, err := trie.Verify(root, proof); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for i := range 20 {
		if err := batch.Update(numberedUpdates(i*100, i*100+3000, "new")); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	batch.Drop()
	if tree.Root() != root {
		t.Errorf("root after Drop is %v, want %v", tree.Root(), root)
	}
}

func TestBatchMisuse(t *testing.T) {
	tree := trie.New()
	batch, err := tree.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Begin(); !errors.Is(err, trie.ErrOpen) {
		t.Errorf("second Begin: %v, want ErrOpen", err)
	}
	twice := append(numberedUpdates(0, 3, "x"), numberedUpdates(1, 2, "y")...)
	if err := batch.Update(twice); !errors.Is(err, trie.ErrDuplicate) {
		t.Errorf("duplicate key: %v, want ErrDuplicate", err)
	}
	if batch.Root() != (trie.Hash{}) {
		t.Error("a refused update changed the root")
	}
	batch.Drop()
	defer func() {
		if recover() == nil {
			t.Error("Commit after Drop did not panic")
		}
	}()
	batch.Commit()
}

// TestNodesAreReused shows that neither commits nor drops leak arena space.
func TestNodesAreReused(t *testing.T) {
	tree := trie.New()
	mustUpdate(t, tree, numberedUpdates(0, 20_000, "start"))
	grow := func(rounds int) uint64 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range rounds {
			batch, err := tree.Begin()
			if err != nil {
				t.Fatal(err)
			}
			value := string(binary.BigEndian.AppendUint64(nil, uint64(i)))
			if err := batch.Update(numberedUpdates(0, 2000, value)); err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 {
				batch.Commit()
			} else {
				batch.Drop()
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		return after.HeapAlloc - min(before.HeapAlloc, after.HeapAlloc)
	}
	grow(10)
	if leaked := grow(200); leaked > 2<<20 {
		t.Errorf("200 batches kept %d bytes", leaked)
	}
}

func TestTamperedProofs(t *testing.T) {
	tree := trie.New()
	mustUpdate(t, tree, numberedUpdates(0, 500, "value"))
	inclusion, _ := tree.Prove(numbered(7))
	inclusion.Value = []byte("value")
	exclusion, _ := tree.Prove(numbered(1000))
	for i := 1001; len(exclusion.OtherKey) == 0; i++ {
		exclusion, _ = tree.Prove(numbered(i))
	}
	gap := exclusion
	for i := 2000; len(gap.OtherKey) != 0; i++ {
		gap, _ = tree.Prove(numbered(i))
	}
	tamperAll(t, tree.Root(), "inclusion", inclusion)
	tamperAll(t, tree.Root(), "other leaf", exclusion)
	tamperAll(t, tree.Root(), "gap", gap)
}

func BenchmarkUpdate(b *testing.B) {
	for _, size := range []int{200, 2_000, 20_000} {
		b.Run(byName(size), func(b *testing.B) {
			tree := trie.New()
			mustUpdate(b, tree, numberedUpdates(0, 200_000, "start"))
			updates := make([]trie.Update, size)
			b.ResetTimer()
			for i := range b.N {
				for j := range updates {
					n := (i*size + j) * 7919 % 200_000
					updates[j] = trie.Update{Key: numbered(n), Value: []byte{byte(i), byte(i >> 8)}}
				}
				mustUpdate(b, tree, updates)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/update")
		})
	}
}

func byName(n int) string {
	return map[int]string{200: "200", 2_000: "2k", 20_000: "20k"}[n]
}
