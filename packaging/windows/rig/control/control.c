/*
 * control SERVICE CODE sends a control to a service; control SERVICE stopped
 * waits two minutes at most until it is. Wine's sc does neither.
 */
#include <windows.h>
#include <stdio.h>

int wmain(int argc, WCHAR **argv)
{
    SC_HANDLE manager = OpenSCManagerW(NULL, NULL, SC_MANAGER_CONNECT), service;
    SERVICE_STATUS st;

    if (argc != 3) return 2;
    service = OpenServiceW(manager, argv[1], SERVICE_QUERY_STATUS | SERVICE_USER_DEFINED_CONTROL);
    if (!service) { printf("open: %lu\n", GetLastError()); return 1; }
    if (wcscmp(argv[2], L"stopped")) {
        if (ControlService(service, wcstoul(argv[2], NULL, 10), &st)) return 0;
        printf("control: %lu\n", GetLastError());
        return 1;
    }
    for (int i = 0; i < 1200; i++) {
        if (QueryServiceStatus(service, &st) && st.dwCurrentState == SERVICE_STOPPED) return 0;
        Sleep(100);
    }
    printf("still in state %lu\n", st.dwCurrentState);
    return 1;
}
