package main

import (
	"image"
	"image/color"
	"math"
)

// maxBounces bounds one light path.
const maxBounces = 5

// progressSteps is how often Render reports.
const progressSteps = 10

// Render draws the scene by path tracing (Kajiya 1986): cosine-weighted diffuse bounces, mirrors,
// and the sun sampled directly. progress is called ten times with the rows that are done.
func Render(scene Scene, width, height, samples int, progress func(done, of int)) *image.RGBA {
	picture := image.NewRGBA(image.Rect(0, 0, width, height))
	camera := newCamera(width, height)
	reported := 0
	for y := range height {
		for x := range width {
			chance := Chance(uint64(y)*0x1_0000_0001 + uint64(x)*0x9e37_79b9)
			var light Vec
			for range samples {
				origin, direction := camera.ray(float64(x)+chance.Next(), float64(y)+chance.Next())
				light = light.Add(scene.trace(origin, direction, &chance))
			}
			picture.SetRGBA(x, y, develop(light.Scale(1/float64(samples))))
		}
		if step := (y + 1) * progressSteps / height; step > reported {
			reported = step
			progress(y+1, height)
		}
	}
	return picture
}

type camera struct {
	eye, forward, right, up Vec
	width, height           float64
}

func newCamera(width, height int) camera {
	eye, target := Vec{-3.4, 1.9, -8.4}, Vec{-0.5, 1.45, 2.5}
	forward := target.Sub(eye).Unit()
	right := Vec{0, 1, 0}.Cross(forward).Unit()
	return camera{
		eye: eye, forward: forward, right: right, up: forward.Cross(right),
		width: float64(width), height: float64(height),
	}
}

func (c *camera) ray(x, y float64) (origin, direction Vec) {
	const zoom = 2.5
	u := (2*x - c.width) / c.height
	v := (c.height - 2*y) / c.height
	d := c.forward.Scale(zoom).Add(c.right.Scale(u)).Add(c.up.Scale(v))
	return c.eye, d.Unit()
}

func (s *Scene) trace(o, d Vec, chance *Chance) Vec {
	var light Vec
	weight := Vec{1, 1, 1}
	for range maxBounces {
		hit, ok := s.Meet(o, d)
		if !ok {
			return light.Add(weight.Mul(s.Sky(d)))
		}
		o = hit.Point.Add(hit.Normal.Scale(1e-4))
		weight = weight.Mul(hit.Surface.Colour)
		if chance.Next() < hit.Surface.Mirror {
			d = d.Sub(hit.Normal.Scale(2 * d.Dot(hit.Normal)))
			weight = weight.Scale(1.1)
			continue
		}
		light = light.Add(weight.Mul(s.sunlight(o, hit.Normal, chance)))
		d = scatter(hit.Normal, chance)
	}
	return light
}

// sunlight is what reaches a point straight from a sun that is a little wider than a point.
func (s *Scene) sunlight(p, normal Vec, chance *Chance) Vec {
	const blur = 0.035
	jitter := Vec{chance.Next() - 0.5, chance.Next() - 0.5, chance.Next() - 0.5}
	to := s.Sun.Add(jitter.Scale(2 * blur)).Unit()
	facing := to.Dot(normal)
	if facing <= 0 {
		return Vec{}
	}
	if _, blocked := s.Meet(p, to); blocked {
		return Vec{}
	}
	return Vec{2.6, 1.75, 1.05}.Scale(facing)
}

// scatter returns a cosine-weighted direction around normal.
func scatter(normal Vec, chance *Chance) Vec {
	z := 2*chance.Next() - 1
	r, angle := math.Sqrt(math.Max(0, 1-z*z)), 2*math.Pi*chance.Next()
	d := normal.Add(Vec{r * math.Cos(angle), r * math.Sin(angle), z})
	if d.Dot(d) < 1e-12 {
		return normal
	}
	return d.Unit()
}

// develop turns linear light into a pixel: filmic curve (Hable's shoulder, simplified by Narkowicz
// 2015), then gamma 2.2.
func develop(light Vec) color.RGBA {
	tone := func(x float64) uint8 {
		x *= 0.85
		y := x * (2.51*x + 0.03) / (x*(2.43*x+0.59) + 0.14)
		return uint8(math.Round(255 * math.Pow(math.Min(1, math.Max(0, y)), 1/2.2)))
	}
	return color.RGBA{R: tone(light.X), G: tone(light.Y), B: tone(light.Z), A: 255}
}
