# OUT = IN with each line @PART@ replaced by what PROGRAM --manual PART prints.
file(READ ${IN} text)
string(REGEX MATCHALL "\n@[a-z:]+@\n" parts "${text}")
foreach(line ${parts})
    string(REGEX REPLACE "[\n@]" "" part "${line}")
    execute_process(COMMAND ${PROGRAM} --manual ${part} OUTPUT_VARIABLE printed COMMAND_ERROR_IS_FATAL ANY)
    string(REPLACE "@${part}@\n" "${printed}" text "${text}")
endforeach()
file(WRITE ${OUT} "${text}")
