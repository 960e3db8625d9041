<?php

declare(strict_types=1);

namespace PMP\Analytics\Api;

/**
 * What an answer means for the messages that were sent.
 */
enum Outcome
{
    /** The mesh has accepted them. */
    case Accepted;
    /** The mesh will never accept them. */
    case Refused;
    /** The mesh failed to process them, or something else answered: retry later. */
    case Failed;
    /** The mesh is unavailable. */
    case Unavailable;
}
