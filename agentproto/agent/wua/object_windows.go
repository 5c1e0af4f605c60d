package wua

import (
	"fmt"
	"time"
	"unsafe"

	"github.com/go-ole/go-ole"
	"github.com/go-ole/go-ole/oleutil"
)

// An object owns one reference to an object of Windows, until release.
//
// Who owns what: a VARIANT that Windows returned owns its content. Either it
// is cleared, or its content moves into an object that is released; never
// both, and never neither, or the content stays for good.
type object struct{ d *ole.IDispatch }

// create makes an object of a class by its name.
func create(class string) (object, error) {
	u, err := oleutil.CreateObject(class)
	if err != nil {
		return object{}, windowsError(class, err)
	}
	defer u.Release()
	d, err := u.QueryInterface(ole.IID_IDispatch)
	if err != nil {
		return object{}, windowsError(class, err)
	}
	return object{d}, nil
}

// release gives the reference back; the zero object has none.
func (o object) release() {
	if o.d != nil {
		o.d.Release()
	}
}

// again is a second reference, for whoever keeps the object for longer.
func (o object) again() object {
	o.d.AddRef()
	return o
}

// owned moves what a VARIANT holds into an object.
func owned(call string, v *ole.VARIANT, err error) (object, error) {
	if err != nil {
		return object{}, windowsError(call, err)
	}
	d := v.ToIDispatch()
	if d == nil {
		vt := v.VT
		v.Clear()
		return object{}, fmt.Errorf("%s: Windows returned no object but a VARIANT of type %d", call, vt)
	}
	return object{d}, nil
}

// call calls a method that returns an object.
func (o object) call(method string, args ...any) (object, error) {
	v, err := oleutil.CallMethod(o.d, method, args...)
	return owned(method, v, err)
}

// do calls a method for what it does.
func (o object) do(method string, args ...any) error {
	v, err := oleutil.CallMethod(o.d, method, args...)
	if err != nil {
		return windowsError(method, err)
	}
	v.Clear()
	return nil
}

// put sets a property to an int, a bool, a string or an *ole.IDispatch; of
// other types go-ole makes something else, or panics.
func (o object) put(property string, value any) error {
	v, err := oleutil.PutProperty(o.d, property, value)
	if err != nil {
		return windowsError(property, err)
	}
	v.Clear()
	return nil
}

// sub returns a property that is an object.
func (o object) sub(property string) (object, error) {
	v, err := oleutil.GetProperty(o.d, property)
	return owned(property, v, err)
}

// A reader reads properties of one object. It keeps the first error, so that
// a description is read line by line and checked once.
type reader struct {
	o   object
	err error
}

func (r *reader) get(property string, use func(*ole.VARIANT)) {
	if r.err != nil {
		return
	}
	v, err := oleutil.GetProperty(r.o.d, property)
	if err != nil {
		r.err = windowsError(property, err)
		return
	}
	use(v)
	v.Clear()
}

// optional reads what not every update, and not every Windows, has.
func (r *reader) optional(read func()) {
	if r.err == nil {
		read()
		r.err = nil
	}
}

func (r *reader) text(property string) (s string) {
	r.get(property, func(v *ole.VARIANT) { s = v.ToString() })
	return s
}

func (r *reader) boolean(property string) (b bool) {
	r.get(property, func(v *ole.VARIANT) { b, _ = v.Value().(bool) })
	return b
}

func (r *reader) long(property string) (n int32) {
	r.get(property, func(v *ole.VARIANT) { n, _ = v.Value().(int32) })
	return n
}

// date reads a DATE; those of the Windows Update Agent are in UTC.
func (r *reader) date(property string) (t time.Time) {
	r.get(property, func(v *ole.VARIANT) { t, _ = v.Value().(time.Time) })
	return t.UTC()
}

// bytes reads a DECIMAL, which go-ole does not decode: its low 64 bits lie
// where other values do, and scale, sign and high bits are in the words
// before, which are reserved in other VARIANTs ([MS-OAUT] 2.2.26). A number
// that has those is none of bytes, and gives 0.
func (r *reader) bytes(property string) (n int64) {
	const decimal = ole.VT(14)
	r.get(property, func(v *ole.VARIANT) {
		if v.VT == decimal && *(*[3]uint16)(unsafe.Add(unsafe.Pointer(v), 2)) == [3]uint16{} {
			n = max(0, v.Val)
		}
	})
	return n
}

// each hands the elements of a collection to use, which must not keep them.
func (r *reader) each(property string, use func(*ole.VARIANT) error) {
	if r.err != nil {
		return
	}
	list, err := r.o.sub(property)
	if err != nil {
		r.err = err
		return
	}
	defer list.release()
	in := reader{o: list}
	n := in.long("Count")
	for i := int32(0); i < n && in.err == nil; i++ {
		v, err := oleutil.GetProperty(list.d, "Item", i)
		if err != nil {
			in.err = windowsError("Item", err)
			break
		}
		in.err = use(v)
		v.Clear()
	}
	r.err = in.err
}

// eachObject is each for collections of objects.
func (r *reader) eachObject(property string, use func(object) error) {
	r.each(property, func(v *ole.VARIANT) error {
		d := v.ToIDispatch()
		if d == nil {
			return fmt.Errorf("%s: an element is no object but a VARIANT of type %d", property, v.VT)
		}
		return use(object{d})
	})
}

func (r *reader) texts(property string) (list []string) {
	r.each(property, func(v *ole.VARIANT) error {
		list = append(list, v.ToString())
		return nil
	})
	return list
}
