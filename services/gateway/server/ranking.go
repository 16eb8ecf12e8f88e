package server

import "container/list"

// ranking knows which of its items has the highest count. Counts change by small steps.
type ranking struct {
	lists map[int]*list.List // items by count; no list is empty
	most  int
}

// rank is an item's place in a ranking; the zero rank is of none.
type rank struct {
	count int
	place *list.Element
}

func newRanking() *ranking { return &ranking{lists: map[int]*list.List{}} }

// set gives an item a count; 0 takes it out.
func (r *ranking) set(item any, at *rank, count int) {
	if l := r.lists[at.count]; at.count > 0 {
		if l.Remove(at.place); l.Len() == 0 {
			delete(r.lists, at.count)
		}
	}
	if at.count = count; count > 0 {
		if r.lists[count] == nil {
			r.lists[count] = list.New()
		}
		at.place = r.lists[count].PushBack(item)
		r.most = max(r.most, count)
	}
	for r.most > 0 && r.lists[r.most] == nil {
		r.most--
	}
}

// top returns the item with the highest count that has had it for longest, nil without any.
func (r *ranking) top() any {
	if r.most == 0 {
		return nil
	}
	return r.lists[r.most].Front().Value
}
