package main

import "math"

// Surface says how a point sends light on.
type Surface struct {
	Colour Vec
	// Mirror is the share of light that is reflected like a mirror, 0 to 1.
	Mirror float64
}

// Hit is where a ray meets the scene.
type Hit struct {
	Distance float64
	Point    Vec
	Normal   Vec
	Surface  Surface
}

// Box is one container: an axis-parallel box with ribbed long sides.
type Box struct {
	Min, Max Vec
	Colour   Vec
}

// Ball is a polished sphere.
type Ball struct {
	Centre Vec
	Radius float64
	Colour Vec
}

// Scene is what is drawn.
type Scene struct {
	Boxes []Box
	Balls []Ball
	Sun   Vec
}

// Yard returns the picture's scene: stacks of containers on wet ground at dusk.
func Yard() Scene {
	colours := []Vec{
		{0.80, 0.22, 0.12}, {0.10, 0.36, 0.62}, {0.93, 0.63, 0.11},
		{0.16, 0.50, 0.34}, {0.75, 0.75, 0.72}, {0.47, 0.20, 0.46},
	}
	scene := Scene{Sun: Vec{-0.62, 0.34, -0.30}.Unit()}
	heights := []int{3, 1, 2, 4, 2, 1, 3, 2, 1}
	for i, height := range heights {
		column, row := float64(i%3), float64(i/3)
		for level := range height {
			x := -4.6 + column*3.1 + 0.25*math.Sin(float64(i*7+level*3))
			z := 1.2 + row*2.3
			y := float64(level) * 1.05
			scene.Boxes = append(scene.Boxes, Box{
				Min:    Vec{x, y, z},
				Max:    Vec{x + 2.6, y + 1.03, z + 1.05},
				Colour: colours[(i*2+level+i/3)%len(colours)],
			})
		}
	}
	scene.Balls = []Ball{
		{Centre: Vec{-0.6, 0.45, -0.5}, Radius: 0.45, Colour: Vec{0.95, 0.93, 0.88}},
		{Centre: Vec{1.6, 0.28, -1.1}, Radius: 0.28, Colour: Vec{0.98, 0.72, 0.35}},
	}
	return scene
}

// Sky returns the light that comes from direction d.
func (s *Scene) Sky(d Vec) Vec {
	up := math.Max(0, d.Y)
	light := Mix(Vec{1.05, 0.52, 0.30}, Vec{0.10, 0.19, 0.42}, math.Pow(up, 0.45))
	toSun := math.Max(0, d.Dot(s.Sun))
	light = light.Add(Vec{1.0, 0.55, 0.25}.Scale(0.55 * math.Pow(toSun, 12)))
	if toSun > 0.9975 {
		light = light.Add(Vec{9, 6.4, 4})
	}
	return light
}

const near = 1e-6

// Meet returns the nearest hit of the ray from o along unit vector d.
func (s *Scene) Meet(o, d Vec) (Hit, bool) {
	hit := Hit{Distance: math.Inf(1)}
	if d.Y < 0 {
		s.meetGround(o, d, &hit)
	}
	for i := range s.Boxes {
		s.Boxes[i].meet(o, d, &hit)
	}
	for i := range s.Balls {
		s.Balls[i].meet(o, d, &hit)
	}
	return hit, !math.IsInf(hit.Distance, 1)
}

func (s *Scene) meetGround(o, d Vec, hit *Hit) {
	t := -o.Y / d.Y
	if t < near || t >= hit.Distance {
		return
	}
	p := o.Add(d.Scale(t))
	puddle := math.Sin(p.X*0.9+1.3)*math.Sin(p.Z*1.1) + 0.35*math.Sin(p.X*2.7+p.Z*1.9)
	surface := Surface{Colour: Vec{0.20, 0.20, 0.22}, Mirror: 0.08}
	if puddle > 0.25 {
		surface = Surface{Colour: Vec{0.08, 0.09, 0.11}, Mirror: 0.62}
	}
	if math.Abs(math.Mod(math.Abs(p.Z)+0.4, 2.3)-1.9) < 0.05 && puddle <= 0.25 {
		surface.Colour = Vec{0.72, 0.60, 0.18}
	}
	*hit = Hit{Distance: t, Point: p, Normal: Vec{0, 1, 0}, Surface: surface}
}

func (b *Box) meet(o, d Vec, hit *Hit) {
	lo, hi, axis := math.Inf(-1), math.Inf(1), 0
	from, along := [3]float64{o.X, o.Y, o.Z}, [3]float64{d.X, d.Y, d.Z}
	least, most := [3]float64{b.Min.X, b.Min.Y, b.Min.Z}, [3]float64{b.Max.X, b.Max.Y, b.Max.Z}
	for i := range 3 {
		t0, t1 := (least[i]-from[i])/along[i], (most[i]-from[i])/along[i]
		if t0 > t1 {
			t0, t1 = t1, t0
		}
		if t0 > lo {
			lo, axis = t0, i
		}
		hi = math.Min(hi, t1)
	}
	if lo > hi || lo < near || lo >= hit.Distance {
		return
	}
	normal := [3]float64{}
	normal[axis] = -math.Copysign(1, along[axis])
	p := o.Add(d.Scale(lo))
	*hit = Hit{
		Distance: lo, Point: p, Normal: Vec{normal[0], normal[1], normal[2]},
		Surface: b.paint(p, axis),
	}
	if axis == 2 { // the long side is corrugated
		hit.Normal.X += 0.45 * math.Cos(p.X*38)
		hit.Normal = hit.Normal.Unit()
	}
}

// paint darkens edges and doors.
func (b *Box) paint(p Vec, axis int) Surface {
	colour := b.Colour
	edge := math.Min(math.Min(p.Y-b.Min.Y, b.Max.Y-p.Y), math.Min(p.X-b.Min.X, b.Max.X-p.X))
	if axis != 1 && edge < 0.035 {
		colour = colour.Scale(0.55)
	}
	if axis == 0 && math.Abs(p.Z-(b.Min.Z+b.Max.Z)/2) < 0.02 {
		colour = colour.Scale(0.3)
	}
	return Surface{Colour: colour, Mirror: 0.04}
}

func (b *Ball) meet(o, d Vec, hit *Hit) {
	to := o.Sub(b.Centre)
	half := to.Dot(d)
	disc := half*half - to.Dot(to) + b.Radius*b.Radius
	if disc < 0 {
		return
	}
	t := -half - math.Sqrt(disc)
	if t < near || t >= hit.Distance {
		return
	}
	p := o.Add(d.Scale(t))
	*hit = Hit{
		Distance: t, Point: p, Normal: p.Sub(b.Centre).Unit(),
		Surface: Surface{Colour: b.Colour, Mirror: 0.85},
	}
}
