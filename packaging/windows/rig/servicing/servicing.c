/*
 * A double of wusa.exe and dism.exe: it installs and removes what the world of
 * the double knows, as far as the agent asks for it. It is built from this and
 * ../double/world.c, and is both programs.
 */
#include "../double/double.h"

#define NOT_APPLICABLE_CBS 0x800F081E
#define NOT_APPLICABLE_WU  0x80240017

/* the update, or the one around it, whose file or KB that is */
static Update *owner(const WCHAR *file, const WCHAR *kb)
{
    for (int i = 0; i < nupdates; i++) {
        Update *top = updates[i];
        const WCHAR *its = attr(top, L"kb");
        if (kb && its && !wcscmp(its, kb)) return top;
        for (int k = -1; file && k < top->nkids; k++) {
            Update *u = k < 0 ? top : top->kids[k];
            for (int f = 0; f < u->nfiles; f++)
                if (!_wcsicmp(basename_of(u->files[f].url), basename_of(file))) return top;
        }
    }
    return NULL;
}

static DWORD install(const WCHAR *file)
{
    Update *u = owner(file, NULL);
    DWORD code = u ? (DWORD)num(u, L"packageresult", 0) : NOT_APPLICABLE_CBS;
    if (GetFileAttributesW(file) == INVALID_FILE_ATTRIBUTES) code = ERROR_FILE_NOT_FOUND;
    if (code == 0) append(L"state.txt", L"installed %ls %ld", u->id, u->rev);
    if (code == ERROR_SUCCESS_REBOOT_REQUIRED) append(L"state.txt", L"pending %ls %ld", u->id, u->rev);
    return code;
}

static DWORD uninstall(const WCHAR *kb)
{
    Update *u = owner(NULL, kb);
    if (!u || !u->installed) return NOT_APPLICABLE_WU;
    append(L"state.txt", L"removed %ls %ld", u->id, u->rev);
    return 0;
}

int wmain(int argc, WCHAR **argv)
{
    WCHAR line[2048] = L"";
    const WCHAR *path = NULL, *kb = NULL;
    DWORD code = ERROR_INVALID_PARAMETER, n = sizeof dir;

    if (!GetEnvironmentVariableW(L"WUADOUBLE_DIR", dir, MAX_PATH) &&
        RegGetValueW(HKEY_LOCAL_MACHINE, L"Software\\WuaDouble", L"Dir", RRF_RT_REG_SZ, NULL, dir, &n))
        wcscpy(dir, L"C:\\wuadouble");
    load_state();
    for (int i = 0; i < argc; i++) {
        const WCHAR *a = i ? argv[i] : basename_of(argv[0]);
        wcsncat(line, a, 2047 - wcslen(line));
        wcsncat(line, L" ", 2047 - wcslen(line));
        if (!_wcsnicmp(a, L"/PackagePath:", 13)) path = a + 13;
        else if (!_wcsnicmp(a, L"/PackageName:Package_for_KB", 27)) {
            WCHAR *end = dup(a + 27);
            end[wcscspn(end, L"~")] = 0;
            kb = end;
        } else if (!_wcsnicmp(a, L"/kb:", 4)) kb = a + 4;
        else if (i && a[0] != '/') path = a;
    }
    if (path) code = install(path);
    else if (kb) code = uninstall(kb);
    LOG(L"%ls-> 0x%08lX", line, code);
    return (int)code;
}
