# OUT = IN with the lines @commands@, @events@, @classes@ replaced by what PROGRAM --manual prints.
file(READ ${IN} text)
foreach(part commands events classes)
    if(text MATCHES "@${part}@")
        execute_process(COMMAND ${PROGRAM} --manual ${part} OUTPUT_VARIABLE printed COMMAND_ERROR_IS_FATAL ANY)
        string(REPLACE "@${part}@\n" "${printed}" text "${text}")
    endif()
endforeach()
file(WRITE ${OUT} "${text}")
