/* IDispatch for everything: methods, plain properties, collections. */
#include "double.h"

LONG live_objects;
CRITICAL_SECTION lock;

#define DISPID_METHODS 1
#define DISPID_PROPS 1000
enum { C_COUNT = 5000, C_ADD, C_CLEAR, C_COPY, C_INSERT, C_REMOVEAT, C_READONLY };
static const struct { const WCHAR *name; DISPID id; } collection_names[] = {
    {L"Item", DISPID_VALUE}, {L"_NewEnum", DISPID_NEWENUM}, {L"Count", C_COUNT}, {L"Add", C_ADD},
    {L"Clear", C_CLEAR}, {L"Copy", C_COPY}, {L"Insert", C_INSERT}, {L"RemoveAt", C_REMOVEAT},
    {L"ReadOnly", C_READONLY},
};

HRESULT WINAPI obj_qi(IDispatch *i, REFIID iid, void **out)
{
    if (IsEqualGUID(iid, &IID_IUnknown) || IsEqualGUID(iid, &IID_IDispatch)) {
        IDispatch_AddRef(i);
        *out = i;
        return S_OK;
    }
    *out = NULL;
    return E_NOINTERFACE;
}

static ULONG WINAPI obj_addref(IDispatch *i) { return InterlockedIncrement(&((Obj *)i)->ref); }

ULONG WINAPI obj_release(IDispatch *i)
{
    Obj *o = (Obj *)i;
    LONG n = InterlockedDecrement(&o->ref);
    if (n == 0) {
        for (int p = 0; p < o->nprops; p++) { free(o->props[p].name); VariantClear(&o->props[p].v); }
        for (int p = 0; p < o->nitems; p++) VariantClear(&o->items[p]);
        free(o->props);
        free(o->items);
        free(o);
        InterlockedDecrement(&live_objects);
    }
    return n;
}

static HRESULT WINAPI obj_typecount(IDispatch *i, UINT *n) { *n = 0; return S_OK; }
static HRESULT WINAPI obj_typeinfo(IDispatch *i, UINT n, LCID l, ITypeInfo **t) { *t = NULL; return DISP_E_BADINDEX; }

static HRESULT WINAPI obj_ids(IDispatch *i, REFIID iid, LPOLESTR *names, UINT n, LCID l, DISPID *ids)
{
    Obj *o = (Obj *)i;
    for (UINT k = 1; k < n; k++) ids[k] = DISPID_UNKNOWN;
    for (int m = 0; o->methods && o->methods[m].name; m++)
        if (!_wcsicmp(names[0], o->methods[m].name)) { ids[0] = DISPID_METHODS + m; return S_OK; }
    for (int p = 0; p < o->nprops; p++)
        if (!_wcsicmp(names[0], o->props[p].name)) { ids[0] = DISPID_PROPS + p; return S_OK; }
    for (size_t c = 0; o->collection && c < ARRAYSIZE(collection_names); c++)
        if (!_wcsicmp(names[0], collection_names[c].name)) { ids[0] = collection_names[c].id; return S_OK; }
    ids[0] = DISPID_UNKNOWN;
    return DISP_E_UNKNOWNNAME;
}

static HRESULT collection_call(Obj *o, DISPID id, WORD flags, VARIANT *a, UINT n, VARIANT *ret);

static HRESULT prop_call(Prop *p, WORD flags, VARIANT *a, UINT n, VARIANT *ret)
{
    if (flags & (DISPATCH_PROPERTYPUT | DISPATCH_PROPERTYPUTREF)) {
        VARIANT v;
        HRESULT hr;
        if (!p->rw) return DISP_E_MEMBERNOTFOUND;
        if (n != 1) return DISP_E_BADPARAMCOUNT;
        VariantInit(&v);
        hr = V_VT(&p->v) == VT_DISPATCH || V_VT(&p->v) == VT_EMPTY ? VariantCopyInd(&v, a)
                                                                  : VariantChangeType(&v, a, 0, V_VT(&p->v));
        if (FAILED(hr)) return DISP_E_TYPEMISMATCH;
        VariantClear(&p->v);
        p->v = v;
        return S_OK;
    }
    if (n == 1 && V_VT(&p->v) == VT_DISPATCH)       /* GetUpdateResult(i) style */
        return collection_call((Obj *)V_DISPATCH(&p->v), DISPID_VALUE, DISPATCH_PROPERTYGET, a, n, ret);
    return VariantCopy(ret, &p->v);
}

static HRESULT WINAPI obj_invoke(IDispatch *i, DISPID id, REFIID iid, LCID l, WORD flags,
                                 DISPPARAMS *dp, VARIANT *ret, EXCEPINFO *ei, UINT *bad)
{
    Obj *o = (Obj *)i;
    VARIANT args[8], dummy;
    UINT n = dp->cArgs;
    HRESULT hr;

    if (n > ARRAYSIZE(args)) return DISP_E_BADPARAMCOUNT;
    for (UINT k = 0; k < n; k++) args[k] = dp->rgvarg[n - 1 - k];    /* natural order, borrowed */
    VariantInit(&dummy);
    if (!ret) ret = &dummy;
    VariantInit(ret);
    EnterCriticalSection(&lock);
    if (id >= C_COUNT || id == DISPID_VALUE || id == DISPID_NEWENUM)
        hr = o->collection ? collection_call(o, id, flags, args, n, ret) : DISP_E_MEMBERNOTFOUND;
    else if (id >= DISPID_PROPS)
        hr = id - DISPID_PROPS < o->nprops ? prop_call(&o->props[id - DISPID_PROPS], flags, args, n, ret) : DISP_E_MEMBERNOTFOUND;
    else
        hr = o->methods[id - DISPID_METHODS].fn(o, args, n, flags, ret);
    LeaveCriticalSection(&lock);
    VariantClear(&dummy);
    if (FAILED(hr) && HRESULT_FACILITY(hr) != FACILITY_DISPATCH && ei) {
        memset(ei, 0, sizeof *ei);
        ei->scode = hr;
        return DISP_E_EXCEPTION;
    }
    return SUCCEEDED(hr) ? S_OK : hr;
}

const IDispatchVtbl obj_vtbl = {
    obj_qi, obj_addref, obj_release, obj_typecount, obj_typeinfo, obj_ids, obj_invoke,
};

Obj *new_obj(const MethodDef *methods)
{
    Obj *o = calloc(1, sizeof *o);
    o->lpVtbl = &obj_vtbl;
    o->ref = 1;
    o->methods = methods;
    InterlockedIncrement(&live_objects);
    return o;
}

Prop *add_prop(Obj *o, const WCHAR *name, VARTYPE vt)
{
    Prop *p = GROW(o->props, o->nprops);
    p->name = dup(name);
    p->rw = FALSE;
    VariantInit(&p->v);
    V_VT(&p->v) = vt;
    return p;
}
Prop *add_str(Obj *o, const WCHAR *name, const WCHAR *s)
{
    Prop *p = add_prop(o, name, VT_BSTR);
    V_BSTR(&p->v) = SysAllocString(s ? s : L"");
    return p;
}
Prop *add_long(Obj *o, const WCHAR *name, LONG v)
{
    Prop *p = add_prop(o, name, VT_I4);
    V_I4(&p->v) = v;
    return p;
}
Prop *add_bool(Obj *o, const WCHAR *name, BOOL v)
{
    Prop *p = add_prop(o, name, VT_BOOL);
    V_BOOL(&p->v) = v ? VARIANT_TRUE : VARIANT_FALSE;
    return p;
}
Prop *add_date(Obj *o, const WCHAR *name, DATE v)
{
    Prop *p = add_prop(o, name, VT_DATE);
    V_DATE(&p->v) = v;
    return p;
}
/* takes over the reference */
Prop *add_obj(Obj *o, const WCHAR *name, Obj *child)
{
    Prop *p = add_prop(o, name, VT_DISPATCH);
    V_DISPATCH(&p->v) = (IDispatch *)child;
    return p;
}

void ret_obj(VARIANT *ret, Obj *o) { V_VT(ret) = VT_DISPATCH; V_DISPATCH(ret) = (IDispatch *)o; }
void ret_bool(VARIANT *ret, BOOL b) { V_VT(ret) = VT_BOOL; V_BOOL(ret) = b ? VARIANT_TRUE : VARIANT_FALSE; }
void ret_long(VARIANT *ret, LONG l) { V_VT(ret) = VT_I4; V_I4(ret) = l; }
void ret_str(VARIANT *ret, const WCHAR *s) { V_VT(ret) = VT_BSTR; V_BSTR(ret) = SysAllocString(s ? s : L""); }

VARIANT *prop(Obj *o, const WCHAR *name)
{
    for (int i = 0; i < o->nprops; i++) if (!wcscmp(o->props[i].name, name)) return &o->props[i].v;
    return NULL;
}

/* Collections. */

Obj *new_collection(BOOL readonly)
{
    Obj *o = new_obj(NULL);
    o->collection = TRUE;
    o->readonly = readonly;
    return o;
}

/* takes over the reference */
void push_obj(Obj *c, Obj *item)
{
    VARIANT *v = GROW(c->items, c->nitems);
    VariantInit(v);
    ret_obj(v, item);
}

void push_str(Obj *c, const WCHAR *s)
{
    VARIANT *v = GROW(c->items, c->nitems);
    VariantInit(v);
    ret_str(v, s);
}

typedef struct { const IEnumVARIANTVtbl *lpVtbl; LONG ref; Obj *coll; int pos; } Enum;
static Enum *new_enum(Obj *coll, int pos);

static HRESULT WINAPI enum_qi(IEnumVARIANT *i, REFIID iid, void **out)
{
    if (IsEqualGUID(iid, &IID_IUnknown) || IsEqualGUID(iid, &IID_IEnumVARIANT)) {
        IEnumVARIANT_AddRef(i);
        *out = i;
        return S_OK;
    }
    *out = NULL;
    return E_NOINTERFACE;
}
static ULONG WINAPI enum_addref(IEnumVARIANT *i) { return InterlockedIncrement(&((Enum *)i)->ref); }
static ULONG WINAPI enum_release(IEnumVARIANT *i)
{
    Enum *e = (Enum *)i;
    LONG n = InterlockedDecrement(&e->ref);
    if (!n) { IDispatch_Release((IDispatch *)e->coll); free(e); InterlockedDecrement(&live_objects); }
    return n;
}
static HRESULT WINAPI enum_next(IEnumVARIANT *i, ULONG want, VARIANT *out, ULONG *got)
{
    Enum *e = (Enum *)i;
    ULONG n = 0;
    while (n < want && e->pos < e->coll->nitems) {
        VariantInit(&out[n]);
        VariantCopy(&out[n++], &e->coll->items[e->pos++]);
    }
    if (got) *got = n;
    return n == want ? S_OK : S_FALSE;
}
static HRESULT WINAPI enum_skip(IEnumVARIANT *i, ULONG n) { ((Enum *)i)->pos += n; return S_OK; }
static HRESULT WINAPI enum_reset(IEnumVARIANT *i) { ((Enum *)i)->pos = 0; return S_OK; }
static HRESULT WINAPI enum_clone(IEnumVARIANT *i, IEnumVARIANT **out)
{
    *out = (IEnumVARIANT *)new_enum(((Enum *)i)->coll, ((Enum *)i)->pos);
    return S_OK;
}
static const IEnumVARIANTVtbl enum_vtbl = {
    enum_qi, enum_addref, enum_release, enum_next, enum_skip, enum_reset, enum_clone,
};
static Enum *new_enum(Obj *coll, int pos)
{
    Enum *e = calloc(1, sizeof *e);
    e->lpVtbl = &enum_vtbl;
    e->ref = 1;
    e->coll = coll;
    e->pos = pos;
    obj_addref((IDispatch *)coll);
    InterlockedIncrement(&live_objects);
    return e;
}

static HRESULT collection_call(Obj *o, DISPID id, WORD flags, VARIANT *a, UINT n, VARIANT *ret)
{
    VARIANT idx;
    LONG k = -1;

    VariantInit(&idx);
    if (id == DISPID_VALUE || id == C_INSERT || id == C_REMOVEAT) {
        if (n < 1 || FAILED(VariantChangeType(&idx, &a[0], 0, VT_I4))) return DISP_E_TYPEMISMATCH;
        k = V_I4(&idx);
        if (k < 0 || k >= o->nitems + (id == C_INSERT)) return WU_E_INVALIDINDEX;
    }
    if (o->readonly && (id == C_ADD || id == C_CLEAR || id == C_INSERT || id == C_REMOVEAT)) return E_ACCESSDENIED;
    switch (id) {
    case DISPID_VALUE: return VariantCopy(ret, &o->items[k]);
    case DISPID_NEWENUM:
        V_VT(ret) = VT_UNKNOWN;
        V_UNKNOWN(ret) = (IUnknown *)new_enum(o, 0);
        return S_OK;
    case C_COUNT: ret_long(ret, o->nitems); return S_OK;
    case C_READONLY: ret_bool(ret, o->readonly); return S_OK;
    case C_ADD:
    case C_INSERT: {
        VARIANT v;
        if (n < (id == C_ADD ? 1 : 2)) return DISP_E_BADPARAMCOUNT;
        VariantInit(&v);
        if (FAILED(VariantCopyInd(&v, &a[n - 1]))) return E_INVALIDARG;
        (void)GROW(o->items, o->nitems);
        if (id == C_ADD) k = o->nitems - 1;
        memmove(&o->items[k + 1], &o->items[k], (o->nitems - 1 - k) * sizeof v);
        o->items[k] = v;
        ret_long(ret, k);
        return S_OK;
    }
    case C_REMOVEAT:
        VariantClear(&o->items[k]);
        memmove(&o->items[k], &o->items[k + 1], (o->nitems - 1 - k) * sizeof *o->items);
        o->nitems--;
        return S_OK;
    case C_CLEAR:
        while (o->nitems) VariantClear(&o->items[--o->nitems]);
        return S_OK;
    case C_COPY: {
        Obj *c = new_collection(FALSE);
        for (int j = 0; j < o->nitems; j++) {
            VARIANT *v = GROW(c->items, c->nitems);
            VariantInit(v);
            VariantCopy(v, &o->items[j]);
        }
        ret_obj(ret, c);
        return S_OK;
    }
    }
    return DISP_E_MEMBERNOTFOUND;
}
