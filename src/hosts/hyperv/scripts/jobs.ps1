# Hyper-V's asynchronous jobs (Msvm_ConcreteJob).
#
# A method that returns 4096 has begun a job; its reference holds keys alone and is read anew each time. A job's object goes 5 minutes
# after its end, so it is looked at much more often than that.

$FirnJobStarted = 4096
$FirnJobCompleted = 7
$FirnJobWarnings = 32768

function Test-FirnJobEnded($job) {
    # New, starting, running, suspended, shutting down.
    return @(2, 3, 4, 5, 6) -notcontains [int] $job.JobState
}

# What a job says of its failure: its own description, and the errors below it, which are the ones that help.
function Get-FirnJobMessage($job) {
    $messages = @("$($job.ErrorDescription)")
    try {
        $answer = Invoke-CimMethod -InputObject $job -MethodName 'GetErrorEx'
        foreach ($text in @($answer.Errors)) {
            if ($text) { $messages += (ConvertFrom-FirnInstance "$text")['Message'] }
        }
    } catch {
        $messages += "$($job.ErrorSummaryDescription)"
    }
    $seen = @(foreach ($message in $messages) { if ($message) { $message.Trim() } })
    return (@(for ($i = 0; $i -lt $seen.Count; $i++) { if ([array]::IndexOf($seen, $seen[$i]) -eq $i) { $seen[$i] } }) -join ' ')
}

# Waits for what a method has begun. Gives the ended job (nothing if there was none) and its warning; throws if it failed or if it goes on
# at the deadline, which ends the waiting and not the job.
function Wait-FirnJob($answer, [string] $what, [int] $deadlineMs, [int] $pollMs) {
    $code = [uint32] $answer.ReturnValue
    if ($code -eq 0) { return @{ job = $null; warning = '' } }
    if ($code -ne $FirnJobStarted) {
        throw (New-FirnError 'job-failed' "$what was refused with the code $code" @{ code = "$code" })
    }
    $end = [datetime]::UtcNow.AddMilliseconds($deadlineMs)
    while ($true) {
        $job = Get-CimInstance -InputObject $answer.Job
        if (Test-FirnJobEnded $job) { break }
        if ([datetime]::UtcNow -ge $end) {
            throw (New-FirnError 'job-deadline' "$what took longer than $deadlineMs ms" @{ percent = "$($job.PercentComplete)" })
        }
        Wait-Firn $pollMs
    }
    $state = [int] $job.JobState
    if ($state -eq $FirnJobCompleted) { return @{ job = $job; warning = '' } }
    $message = Get-FirnJobMessage $job
    if ($state -eq $FirnJobWarnings) {
        return @{ job = $job; warning = $(if ($message) { $message } else { "$what ended with warnings" }) }
    }
    throw (New-FirnError 'job-failed' "$what failed: $message" @{ code = "$($job.ErrorCode)"; state = "$state" })
}

# The job of a claim, if the host still has it and it goes on.
function Find-FirnRunningJob($instanceId) {
    if (-not $instanceId) { return $null }
    foreach ($job in @(Get-CimInstance -Namespace $FirnVirtualization -ClassName 'Msvm_ConcreteJob')) {
        if ("$($job.InstanceID)" -eq $instanceId -and -not (Test-FirnJobEnded $job)) { return $job }
    }
    return $null
}
