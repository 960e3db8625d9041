<?php

declare(strict_types=1);

namespace PMP\Analytics\Api;

/**
 * What an answer means for what was sent.
 */
enum Outcome
{
    /** The mesh has it. */
    case Accepted;
    /** The mesh read it and will never take it. */
    case Refused;
    /** The mesh failed on it, or something else answered: later perhaps. */
    case Failed;
    /** Nobody can be told anything now. */
    case Unavailable;
}
