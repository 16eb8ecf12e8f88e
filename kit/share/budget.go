package share

// Budget is a number of bytes of which nobody gets more than half of what others leave, so that
// whoever comes next finds some. A first piece is taken wherever there is room for it. Its user
// guards it: it is not safe for concurrent use.
type Budget struct {
	most, taken int
	of          map[string]int
}

// NewBudget returns a budget of which nothing is taken.
func NewBudget(most int) *Budget { return &Budget{most: most, of: map[string]int{}} }

// Most is what there is in all.
func (b *Budget) Most() int { return b.most }

// Free is what nobody has.
func (b *Budget) Free() int { return b.most - b.taken }

// Has is what a client has.
func (b *Budget) Has(who string) int { return b.of[who] }

// Take takes n bytes for a client, and tells whether there is room for them.
func (b *Budget) Take(who string, n int) bool {
	has, free := b.Has(who), b.Free()
	if n > free || has > 0 && has+n > (free+has)/2 {
		return false
	}
	b.Add(who, n)
	return true
}

// Give gives n bytes back.
func (b *Budget) Give(who string, n int) { b.Add(who, -n) }

// Add counts bytes that are there whether there is room or not, or that are gone.
func (b *Budget) Add(who string, n int) {
	b.taken += n
	if b.of[who] += n; b.of[who] == 0 {
		delete(b.of, who)
	}
}
